//! h2o's fuzzing corpus for HTTP/1 (`fuzz/http1-corpus`): what a fuzzer found worth keeping.

use crate::corpus::{files, folder};
use crate::harness::server::Driver;
use crate::harness::shared::on_both_drivers;
use crate::wire::check_all;

on_both_drivers!(std::convert::identity => every_input_is_answered_or_refused_however_it_is_split);

fn every_input_is_answered_or_refused_however_it_is_split(driver: &Driver) {
    let inputs = files(&folder("h2o-2.2.5").join("fuzz/http1-corpus"));
    assert_eq!(inputs.len(), 1709);
    check_all(*driver, &inputs, 3, false);
}

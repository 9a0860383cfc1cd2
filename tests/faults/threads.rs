//! A thread of the client library's side that panics. Only a build with `fault-injection` has one that does.

use crate::deployment::Deployment;
use crate::harness::request::post;
use crate::harness::token::token;

#[test]
fn a_process_whose_thread_of_kafkas_reports_panics_says_so_and_ends() {
    let deployment = Deployment::beside_others().set("FAULT_KAFKA_REPORTS", "1");
    let _worker = deployment.worker();
    let api = deployment.serve();
    let mut client = api.connect();
    client.send(post(&token("anna"), r#"{"title":"its report is lost"}"#).bytes());
    // Nobody can say any longer what becomes of writes, so none is promised, and none hangs.
    if let Some(answer) = client.answer_unless_cut_off() {
        assert_eq!(answer.status, 503, "{answer:?}");
    }
    let finished = api.process.finish();
    assert!(!finished.status.success(), "{finished:?}");
    for text in ["thread of Kafka's client ended unexpectedly", "the kafka-reports thread ended unexpectedly"] {
        assert!(finished.stderr.contains(text), "{text:?} is missing: {}", finished.stderr);
    }
}

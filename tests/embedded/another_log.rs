//! A log that is not the one of the store beside it: by the store's offset, its first commands would count as applied.

use std::path::Path;

use million_rps::store::sqlite::SCHEMA_VERSION;

use crate::folder::{copy_folder, create, eventually_titles, reason, rename};
use crate::harness::eventually;
use crate::harness::request::get;
use crate::harness::server::Setup;

/// Starts a server, creates todos with these titles behind `before`, waits until all are shown, and stops it.
fn run(setup: &Setup, before: &[String], titles: &[String]) -> Vec<String> {
    let server = setup.start();
    let mut client = server.connect();
    let mut expected = before.to_vec();
    for title in titles {
        create(&mut client, title).expect(202);
        expected.push(title.clone());
    }
    expected.sort();
    eventually_titles(&mut client, &expected);
    assert_eq!(reason(&mut client, ""), None);
    assert_eq!(server.stop().status.code(), Some(0));
    expected
}

fn named(name: &str, numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("{name} {number}")).collect()
}

/// Two deployments, and the log of the second in the folder of the first; the first one's own is beside it.
fn with_another_log(own: usize, others: usize) -> (Setup, Vec<String>, Vec<String>) {
    let (setup, other) = (Setup::new(), Setup::new());
    let titles = run(&setup, &[], &named("own", 0..own));
    let others = run(&other, &[], &named("other", 0..others));
    exchange(&setup.data_dir(), &other.data_dir().join("log"));
    (setup, titles, others)
}

fn exchange(data: &Path, log: &Path) {
    rename(&data.join("log"), &data.join("own-log"));
    copy_folder(log, &data.join("log"));
}

fn assert_refused(setup: &Setup) {
    let refused = setup.run(&[]);
    assert!(!refused.status.success(), "{refused:?}");
    for part in ["offsets of another command log", "migrate --from-beginning", "--from-end"] {
        assert!(refused.stderr.contains(part), "{part} is missing: {refused:?}");
    }
}

#[test]
fn another_log_is_not_taken_for_the_own_whatever_its_length() {
    for others in [2, 5, 9] {
        let (setup, titles, _) = with_another_log(5, others);
        assert_refused(&setup);
        // Nothing was done to either.
        std::fs::remove_dir_all(setup.data_dir().join("log")).expect("removed");
        rename(&setup.data_dir().join("own-log"), &setup.data_dir().join("log"));
        run(&setup, &titles, &named("later", 0..2));
    }
}

#[test]
fn another_log_is_followed_when_somebody_says_so() {
    for (argument, takes_all) in [("--from-beginning", true), ("--from-end", false)] {
        let (setup, titles, others) = with_another_log(5, 9);
        assert_refused(&setup);
        let told = setup.run_successfully(&["migrate", argument]);
        assert!(told.contains("is applied from offset"), "{told}");
        let taken = if takes_all { others } else { Vec::new() };
        let titles = run(&setup, &[titles, taken].concat(), &named("later", 0..2));
        run(&setup, &titles, &named("at last", 0..12));
    }
}

#[test]
fn a_place_is_set_in_no_log_that_is_in_use_and_in_none_of_groups() {
    let setup = Setup::new();
    let server = setup.start();
    let busy = setup.run(&["migrate", "--from-beginning"]);
    assert!(!busy.status.success() && busy.stderr.contains("in use"), "{busy:?}");
    server.stop();
    for group in ["--from-group", "--to-group"] {
        let refused = setup.run(&["migrate", group, "workers"]);
        assert!(!refused.status.success() && refused.stderr.contains("no consumer groups"), "{refused:?}");
    }
}

#[test]
fn a_folder_of_a_version_without_ids_gets_one_and_is_known_by_it() {
    let setup = Setup::new();
    let data = setup.data_dir();
    let titles = run(&setup, &[], &named("own", 0..5));
    std::fs::remove_file(data.join("log/id")).expect("there was one");
    forget_id(&data);
    let titles = run(&setup, &titles, &named("upgraded", 0..1));
    let other = Setup::new();
    run(&other, &[], &named("other", 0..9));
    exchange(&data, &other.data_dir().join("log"));
    assert_refused(&setup);
    std::fs::remove_dir_all(data.join("log")).expect("removed");
    rename(&data.join("own-log"), &data.join("log"));
    run(&setup, &titles, &named("later", 0..2));
}

/// The store becomes one of the version before, which noted no ids.
fn forget_id(data: &Path) {
    let store = rusqlite::Connection::open(data.join("todos.sqlite")).expect("opened");
    store.execute_batch("DROP TABLE followed_log; PRAGMA user_version = 3").expect("as it was");
    assert_eq!(SCHEMA_VERSION, 4, "the version before is the third");
}

/// It is continued where the store stands before it is given anything, so that it cannot grow past that place.
#[test]
fn a_log_that_ends_before_the_place_of_a_store_without_an_id_loses_nothing_that_it_is_given() {
    for others in [0, 2] {
        let (setup, titles, _) = with_another_log(5, others);
        if others == 0 {
            std::fs::remove_dir_all(setup.data_dir().join("log")).expect("removed");
        }
        forget_id(&setup.data_dir());
        let titles = run(&setup, &titles, &named("later", 0..2));
        let titles = run(&setup, &titles, &named("grown", 0..9));
        run(&setup, &titles, &named("at last", 0..1));
    }
}

/// The log is whole, and writes are kept; only the next start would not know it.
#[test]
fn a_log_id_that_is_lost_under_a_server_is_named_at_once_and_can_be_put_back() {
    let setup = Setup::new();
    let path = setup.data_dir().join("log/id");
    let server = setup.start();
    let mut client = server.connect();
    create(&mut client, "before").expect(202);
    let text = std::fs::read_to_string(&path).expect("there is one");
    for damage in [None, Some("another"), Some("AAAAAAAAAAAAAAAAAAAAAQ\n")] {
        match damage {
            None => std::fs::remove_file(&path).expect("removed"),
            Some(damage) => std::fs::write(&path, damage).expect("overwritten"),
        }
        let told =
            eventually("the reason", || reason(&mut client, "data_folder: ").filter(|told| told.contains("log/id")));
        create(&mut client, &format!("while {damage:?}")).expect(202);
        let (_, command) = told.split_once("Put the file back: ").expect("a remedy");
        let (command, _) = command.split_once(". After").expect("its end");
        let shell = std::process::Command::new("sh").args(["-c", command]).status().expect("a shell");
        assert!(shell.success(), "{command}");
        assert_eq!(std::fs::read_to_string(&path).expect("back"), text);
        eventually("no reason", || reason(&mut client, "data_folder: ").is_none().then_some(()));
    }
    assert_eq!(server.stop().status.code(), Some(0));
    assert_eq!(setup.start().connect().call(&get("/todos")).expect(200).json().as_array().map(Vec::len), Some(4));
}

//! The data folder while it is in use: what no restart would find is not acknowledged.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::harness::client::{Answer, Client};
use crate::harness::disk::Disk;
use crate::harness::eventually;
use crate::harness::process::Process;
use crate::harness::request::{get, post};
use crate::harness::server::{Server, Setup};
use crate::harness::token::token;

pub fn create(client: &mut Client, title: &str) -> Answer {
    client.call(&post(&token("keeper"), json!({ "title": title }).to_string()))
}

fn titles(client: &mut Client) -> Vec<String> {
    let list = client.call(&get("/todos")).expect(200).json();
    let mut titles: Vec<String> = list
        .as_array()
        .expect("a list")
        .iter()
        .map(|todo| todo["title"].as_str().expect("a text").to_owned())
        .collect();
    titles.sort();
    titles
}

pub fn eventually_titles(client: &mut Client, expected: &[String]) {
    eventually("the list", || (titles(client) == expected).then_some(()));
}

/// The reason of `/ready` that begins with this component's name.
pub fn reason(client: &mut Client, component: &str) -> Option<String> {
    let ready = client.call(&get("/ready")).expect(200).json();
    let reasons = ready["reasons"].as_array().expect("a list").clone();
    reasons.iter().filter_map(|reason| reason.as_str()?.strip_prefix(component)).map(str::to_owned).next()
}

pub fn segment(data: &Path) -> PathBuf {
    let files = std::fs::read_dir(data.join("log")).expect("the log").flatten().map(|entry| entry.path());
    let mut segments: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect();
    segments.sort();
    segments.pop().expect("a segment")
}

pub fn rename(from: &Path, to: &Path) {
    std::fs::rename(from, to).expect("renamed");
}

pub fn copy_folder(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success());
}

/// A way to take the ground from under a server, and the way back, where there is one.
type Way = (&'static str, fn(&Path), Option<fn(&Path)>);

fn aside(path: &Path) -> PathBuf {
    path.with_extension("aside")
}

const WAYS: &[Way] = &[
    ("the folder is deleted", |data| std::fs::remove_dir_all(data).expect("deleted"), None),
    ("the folder is moved", |data| rename(data, &aside(data)), Some(|data| rename(&aside(data), data))),
    (
        "a folder above it is moved",
        |data| rename(data.parent().expect("a parent"), &aside(data.parent().expect("a parent"))),
        Some(|data| rename(&aside(data.parent().expect("a parent")), data.parent().expect("a parent"))),
    ),
    (
        "the folder is replaced by a copy",
        |data| {
            rename(data, &aside(data));
            copy_folder(&aside(data), data);
        },
        Some(|data| {
            rename(data, &data.with_extension("copy"));
            rename(&aside(data), data);
        }),
    ),
    (
        "the log's folder is moved",
        |data| rename(&data.join("log"), &data.join("l")),
        Some(|data| rename(&data.join("l"), &data.join("log"))),
    ),
    ("the segment is deleted", |data| std::fs::remove_file(segment(data)).expect("deleted"), None),
    (
        "the segment is replaced by a copy",
        |data| {
            let segment = segment(data);
            rename(&segment, &data.join("segment"));
            std::fs::copy(data.join("segment"), segment).expect("copied");
        },
        Some(|data| rename(&data.join("segment"), &segment(data))),
    ),
    (
        "the segment is cut",
        |data| std::fs::File::options().write(true).open(segment(data)).and_then(|file| file.set_len(3)).expect("cut"),
        None,
    ),
    (
        "the store is moved",
        |data| rename(&data.join("todos.sqlite"), &data.join("s")),
        Some(|data| rename(&data.join("s"), &data.join("todos.sqlite"))),
    ),
    ("the store is deleted", |data| std::fs::remove_file(data.join("todos.sqlite")).expect("deleted"), None),
    (
        "the store is replaced",
        |data| {
            rename(&data.join("todos.sqlite"), &data.join("s"));
            std::fs::copy(data.join("s"), data.join("todos.sqlite")).expect("copied");
        },
        Some(|data| rename(&data.join("s"), &data.join("todos.sqlite"))),
    ),
    (
        "the store's log is moved",
        |data| rename(&data.join("todos.sqlite-wal"), &data.join("w")),
        Some(|data| rename(&data.join("w"), &data.join("todos.sqlite-wal"))),
    ),
];

#[test]
fn what_no_restart_would_find_is_not_acknowledged() {
    for (what, take_away, give_back) in WAYS {
        println!("{what}");
        let parent = Setup::new();
        let data = parent.folder().join("parent/data");
        let setup = parent.set("DATA_DIR", data.to_str().expect("a text"));
        let server = setup.start();
        let mut client = server.connect();
        let mut kept = vec!["before".to_owned()];
        create(&mut client, "before").expect(202);
        eventually_titles(&mut client, &kept);
        assert_eq!(reason(&mut client, "data_folder: "), None, "{what}");

        take_away(&data);
        let refused = create(&mut client, "lost");
        refused.problem(503);
        assert!(refused.required("Retry-After").parse::<u32>().is_ok(), "{refused:?}");
        assert_eq!(titles(&mut client), kept, "reads go on");
        let reason_given = reason(&mut client, "data_folder: ").unwrap_or_else(|| panic!("{what}: no reason"));
        assert!(
            reason_given.contains("writes are refused") || reason_given.contains("Writes are refused"),
            "{reason_given}"
        );
        assert!(reason_given.contains("restart") || reason_given.contains("back"), "a remedy: {reason_given}");
        let refused = create(&mut client, "lost again").problem(503);
        assert!(refused.contains("nothing was written"), "{what}: the log was not even tried: {refused}");

        if let Some(give_back) = give_back {
            give_back(&data);
            eventually("writes to go on", || (create(&mut client, "after").status == 202).then_some(()));
            kept.insert(0, "after".into());
            eventually_titles(&mut client, &kept);
            eventually("no reason", || reason(&mut client, "data_folder: ").is_none().then_some(()));
            server.kill();
            eventually_titles(&mut setup.start().connect(), &kept);
        }
    }
}

#[test]
fn a_folder_that_is_gone_is_noticed_while_nobody_writes() {
    let setup = Setup::new();
    let server = setup.start();
    let mut client = server.connect();
    std::fs::remove_dir_all(setup.data_dir()).expect("deleted");
    let text = eventually("the reason", || reason(&mut client, "data_folder: "));
    assert!(text.contains("deleted") && text.contains("restart"), "{text}");
    let metrics = client.call(&get("/metrics")).expect(200).text().to_owned();
    assert!(metrics.contains("million_rps_component_up{component=\"data_folder\"} 0"), "{metrics}");
    assert_eq!(server.stop().status.code(), Some(0));
    let server = setup.start();
    let mut client = server.connect();
    create(&mut client, "afresh").expect(202);
    eventually_titles(&mut client, &["afresh".into()]);
}

/// The log has only the last commands once the store has the others: without the store, a start would show a part of the
/// list as if it were all.
#[test]
fn a_log_that_ends_before_what_the_store_has_applied_takes_no_offset_twice() {
    type Harm = (&'static str, fn(&Path));
    let harms: [Harm; 4] = [
        ("the folder of the log is deleted", |data| std::fs::remove_dir_all(data.join("log")).expect("deleted")),
        ("its segment is deleted", |data| std::fs::remove_file(segment(data)).expect("deleted")),
        ("its segment is empty", |data| std::fs::write(segment(data), "").expect("emptied")),
        ("an older copy is put back", |data| {
            std::fs::remove_dir_all(data.join("log")).expect("deleted");
            rename(&data.join("older"), &data.join("log"));
        }),
    ];
    for (what, harm) in harms {
        let setup = Setup::new();
        let data = setup.data_dir();
        let server = setup.start();
        let mut expected: Vec<String> = Vec::new();
        let mut add = |client: &mut Client, titles: std::ops::Range<usize>| {
            for number in titles {
                expected.push(format!("{number:02}"));
                create(client, &format!("{number:02}")).expect(202);
            }
            eventually_titles(client, &expected);
        };
        add(&mut server.connect(), 0..2);
        copy_folder(&data.join("log"), &data.join("older"));
        add(&mut server.connect(), 2..5);
        server.stop();
        harm(&data);
        // More than were applied before, in two lives.
        for titles in [5..8, 8..16] {
            let server = setup.start();
            add(&mut server.connect(), titles);
            assert!(reason(&mut server.connect(), "").is_none(), "{what}");
            server.stop();
        }
    }
}

#[test]
fn a_store_that_is_gone_is_not_made_anew_from_a_part_of_the_log() {
    let setup = Setup::new();
    let server = setup.start();
    create(&mut server.connect(), "before").expect(202);
    eventually_titles(&mut server.connect(), &["before".into()]);
    assert_eq!(server.stop().status.code(), Some(0));
    let delete_store = || {
        for ending in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(setup.data_dir().join(format!("todos.sqlite{ending}")));
        }
    };
    // As long as the log has everything, the store can be made again.
    delete_store();
    let server = setup.start();
    eventually_titles(&mut server.connect(), &["before".into()]);
    assert_eq!(server.stop().status.code(), Some(0));

    let whole = segment(&setup.data_dir());
    rename(&whole, &whole.with_file_name("00000000000000000001.log"));
    std::fs::write(whole.with_file_name("00000000000000000001.log"), "").expect("written");
    delete_store();
    let finished = setup.run(&[]);
    assert!(!finished.status.success(), "{finished:?}");
    assert!(finished.stderr.contains("todos.sqlite is gone") && finished.stderr.contains("backup"), "{finished:?}");
    std::fs::write(setup.data_dir().join("todos.sqlite"), "").expect("written");
    let server = setup.start();
    let mut client = server.connect();
    create(&mut client, "after").expect(202);
    eventually_titles(&mut client, &["after".into()]);
}

/// A server whose data folder is a disk of its own.
fn start_on(setup: &Setup, disk: &Disk) -> Server {
    setup.start_changed(|command| disk.enter(command, setup.folder()))
}

fn migrate_on(setup: &Setup, disk: &Disk) -> crate::harness::process::Finished {
    let mut command = setup.command(&["migrate"]);
    disk.enter(&mut command, setup.folder());
    Process::start(command).finish()
}

const DISK_BYTES: u64 = 8 * 1024 * 1024;

/// The disk is full when the server starts, or becomes full a little later: at each step of the first start, and of the
/// batches behind it.
#[test]
fn a_disk_that_is_full_at_any_moment_loses_nothing_that_was_acknowledged() {
    for free_kib in [0, 4, 12, 40, 80, 160, 700] {
        println!("{free_kib} KiB are free");
        let setup = Setup::new().unset("JWT_SECRET");
        let disk = Disk::new(&setup.data_dir(), DISK_BYTES);
        let filler = disk.path().join("filler");
        std::fs::write(&filler, vec![b'x'; (DISK_BYTES - free_kib * 1024) as usize]).expect("room for the filler");
        let failed = migrate_on(&setup, &disk);
        if !failed.status.success() {
            // Nothing was promised. What the failed start has left is no obstacle to the next.
            assert!(failed.stderr.contains("data"), "{failed:?}");
            std::fs::remove_file(&filler).expect("removed");
            let server = start_on(&setup, &disk);
            server.connect().assert_goes_on();
            continue;
        }
        let mut command = setup.command(&[]);
        disk.enter(&mut command, setup.folder());
        let mut starting = Process::start(command);
        let started = eventually("the server, or its end", || {
            let is_up = starting.stdout.text().contains("listens on");
            let ended = starting.status().is_some();
            (is_up || ended).then_some(is_up)
        });
        if !started {
            let finished = starting.finish();
            assert!(!finished.status.success() && !finished.stderr.is_empty(), "{finished:?}");
            std::fs::remove_file(&filler).expect("removed");
            start_on(&setup, &disk).connect().assert_goes_on();
            continue;
        }
        drop(starting);
        fill_and_go_on(&setup, &disk, &filler);
    }
}

fn fill_and_go_on(setup: &Setup, disk: &Disk, filler: &Path) {
    let setup = setup.clone().set("JWT_SECRET", crate::harness::token::SECRET);
    let server = start_on(&setup, disk);
    let mut client = server.connect();
    let mut accepted = Vec::new();
    let refused = eventually("the disk to be full", || {
        let title = format!("{:06}", accepted.len());
        let body = json!({ "title": title, "description": "x".repeat(8_000) });
        let answer = client.call(&post(&token("keeper"), body.to_string()));
        if answer.status != 202 {
            return Some(answer);
        }
        accepted.push(title);
        None
    });
    refused.problem(503);
    let text = reason(&mut client, "data_folder: ").expect("a reason");
    assert!(text.contains("make room"), "{text}");
    assert_eq!(client.call(&get("/todos?limit=1")).status, 200, "reads go on");
    std::fs::remove_file(filler).expect("removed");
    eventually("writes to go on", || (create(&mut client, "room again").status == 202).then_some(()));
    accepted.push("room again".into());
    eventually_titles(&mut client, &accepted);
    eventually("no reason", || reason(&mut client, "data_folder: ").is_none().then_some(()));
    server.kill();
    eventually_titles(&mut start_on(&setup, disk).connect(), &accepted);
}

#[test]
fn a_disk_that_is_covered_or_gone_is_told() {
    let setup = Setup::new();
    let disk = Disk::new(&setup.data_dir(), DISK_BYTES);
    let server = start_on(&setup, &disk);
    let mut client = server.connect();
    create(&mut client, "1").expect(202);

    disk.run("mount", &["-t", "tmpfs", "tmpfs"]);
    create(&mut client, "lost").problem(503);
    let text = reason(&mut client, "data_folder: ").expect("a reason");
    assert!(text.contains("something else stands at its place"), "{text}");
    disk.run("umount", &[]);
    create(&mut client, "2").expect(202);
    let all = ["1", "2"].map(str::to_owned);
    eventually_titles(&mut client, &all);
    server.kill();
    let server = start_on(&setup, &disk);
    let mut client = server.connect();
    eventually_titles(&mut client, &all);

    disk.run("umount", &["--lazy"]);
    create(&mut client, "lost").problem(503);
    assert_eq!(titles(&mut client), all, "reads go on");
    assert!(reason(&mut client, "data_folder: ").is_some());
}

/// What ext4 does after an error of its disk (`errors=remount-ro`): no write succeeds, in the middle of the work.
#[test]
fn a_disk_that_becomes_read_only_is_told() {
    let setup = Setup::new();
    let image = setup.folder().join("image");
    std::fs::File::create(&image).and_then(|file| file.set_len(2 * DISK_BYTES)).expect("made");
    let disk = Disk::new(&setup.data_dir(), DISK_BYTES);
    let made = std::process::Command::new("mkfs.ext4").arg("-q").arg(&image).status();
    let has_loop_devices = std::path::Path::new("/dev/loop-control").exists();
    if !has_loop_devices || !made.is_ok_and(|status| status.success()) {
        println!("this machine has no loop devices, or no mkfs.ext4: nothing was tested");
        return;
    }
    let mount = |options: &str| disk.run("mount", &["-o", options, image.to_str().expect("a text")]);
    mount("loop,errors=remount-ro");
    let server = start_on(&setup, &disk);
    let mut client = server.connect();
    create(&mut client, "1").expect(202);
    eventually_titles(&mut client, &["1".to_owned()]);
    disk.run("mount", &["-o", "remount,abort"]);
    create(&mut client, "lost").problem(503);
    let text = reason(&mut client, "data_folder: ").expect("a reason");
    assert!(text.contains("for writing again"), "{text}");
    assert_eq!(titles(&mut client), ["1"], "reads go on");
    create(&mut client, "lost").problem(503);
    server.kill();
    disk.run("umount", &[]);
    mount("loop");
    let server = start_on(&setup, &disk);
    let mut client = server.connect();
    create(&mut client, "2").expect(202);
    eventually_titles(&mut client, &["1", "2"].map(str::to_owned));
}

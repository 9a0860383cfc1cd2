//! The data folder and everybody else on the machine: what others could read, change or lay in the way.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::harness::eventually;
use crate::harness::request::{get, post};
use crate::harness::server::{Server, Setup};

fn rename(from: &Path, to: &Path) {
    std::fs::rename(from, to).expect("renamed");
}

/// Every file and folder below, with its mode.
fn modes(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = vec![(folder.to_owned(), std::fs::metadata(folder).expect("there").mode() & 0o777)];
    for entry in std::fs::read_dir(folder).expect("readable").flatten() {
        // SQLite's files may be leaving.
        let Ok(metadata) = entry.path().symlink_metadata() else { continue };
        match metadata.is_dir() {
            true => found.extend(modes(&entry.path())),
            false => found.push((entry.path(), metadata.mode() & 0o777)),
        }
    }
    found
}

fn assert_private(data: &Path, files_at_least: usize) {
    let found = modes(data);
    assert!(found.len() >= files_at_least, "{found:?}");
    for (path, mode) in found {
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    }
}

#[test]
fn all_files_are_for_their_owner_alone_whatever_the_umask_and_whatever_they_were() {
    let setup = Setup::new().unset("JWT_SECRET");
    let start = || {
        setup.start_changed(|command| {
            // SAFETY: between fork and exec the closure only makes one async-signal-safe system call.
            unsafe {
                command.pre_exec(|| {
                    libc::umask(0);
                    Ok(())
                });
            }
        })
    };
    let use_it = |server: &Server, title: &str| {
        let token = setup.run_successfully(&["token", "--sub", "me"]);
        server.connect().call(&post(token.trim(), json!({ "title": title }).to_string())).expect(202);
        let mut client = server.connect();
        eventually("the todo", || client.call(&get("/todos")).expect(200).text().contains(title).then_some(()));
    };
    let server = start();
    use_it(&server, "1");
    // The folder, its log with a segment, format, lock, jwt-secret, and SQLite's three files.
    assert_private(&setup.data_dir(), 9);
    server.kill();
    for (path, _) in modes(&setup.data_dir()) {
        let mode = if path.is_dir() { 0o755 } else { 0o666 };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("widened");
    }
    std::fs::set_permissions(setup.data_dir(), std::fs::Permissions::from_mode(0o700)).expect("narrowed");
    let server = start();
    assert_private(&setup.data_dir(), 9);
    use_it(&server, "2");
    assert_private(&setup.data_dir(), 9);
    assert!(server.log().contains("todos.sqlite had mode 666"), "{}", server.log());
}

#[test]
fn a_folder_that_others_could_change_is_refused() {
    let refused = |setup: &Setup, what: &str, named: &str| {
        let finished = setup.run(&[]);
        assert!(!finished.status.success(), "{what}: {finished:?}");
        assert!(finished.stderr.contains("is not used") && finished.stderr.contains(named), "{what}: {finished:?}");
    };
    let chmod = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("changed");
    };
    let setup = Setup::new();
    assert_eq!(setup.start().stop().status.code(), Some(0));
    for mode in [0o770, 0o707, 0o777, 0o2770] {
        chmod(&setup.data_dir(), mode);
        refused(&setup, "others may write", "chmod go-w");
    }
    chmod(&setup.data_dir(), 0o700);
    chmod(&setup.data_dir().join("log"), 0o777);
    refused(&setup, "others may write to the log", "chmod go-w");
    chmod(&setup.data_dir().join("log"), 0o700);
    // Others can only put files of their own here, such as one that the server has not made yet.
    chmod(&setup.data_dir(), 0o1777);
    refused(&setup, "others may add to it", "DATA_DIR=");
    // As /tmp is.
    let everybodys = setup.folder().join("everybodys");
    std::fs::create_dir(&everybodys).expect("made");
    chmod(&everybodys, 0o1777);
    let text = everybodys.to_str().expect("a text");
    refused(&setup.clone().set("DATA_DIR", text), "everybody's", &format!("DATA_DIR={text}/million-rps"));
    assert_eq!(std::fs::read_dir(&everybodys).expect("readable").count(), 0, "nothing was written there");
    chmod(&setup.data_dir(), 0o755);
    assert_eq!(setup.start().stop().status.code(), Some(0));

    // SAFETY: plain system calls without arguments.
    let is_root = unsafe { libc::geteuid() == 0 };
    if is_root {
        for name in ["", "lock", "todos.sqlite", "jwt-secret", "log"] {
            let path = setup.data_dir().join(name);
            if name == "jwt-secret" {
                std::fs::write(&path, "0123456789abcdef0123456789abcdef").expect("written");
            }
            std::os::unix::fs::chown(&path, Some(65_534), None).expect("given away");
            refused(&setup, name, "belongs to user 65534");
            std::os::unix::fs::chown(&path, Some(0), None).expect("taken back");
        }
        std::fs::create_dir(setup.data_dir().join("dead-letters")).expect("made");
        for name in
            ["format.unfinished", "jwt-secret.unfinished", "dead-letters/1-1.unfinished", "todos.sqlite-journal"]
        {
            let path = setup.data_dir().join(name);
            std::fs::write(&path, "by another user").expect("written");
            std::os::unix::fs::chown(&path, Some(65_534), None).expect("given away");
            refused(&setup, name, "belongs to user 65534");
            std::fs::remove_file(&path).expect("removed");
        }
        assert_eq!(setup.start().stop().status.code(), Some(0));
    } else {
        refused(&setup.set("DATA_DIR", "/usr"), "root's", "belongs to user 0");
    }
}

#[test]
fn links_in_the_folder_are_not_followed() {
    let setup = Setup::new().unset("JWT_SECRET");
    assert_eq!(setup.start().stop().status.code(), Some(0));
    for name in ["lock", "jwt-secret", "format", "todos.sqlite", "todos.sqlite-wal", "log", "dead-letters"] {
        let (path, target) = (setup.data_dir().join(name), setup.folder().join("target"));
        let is_there = path.exists();
        match is_there {
            true => rename(&path, &target),
            false => std::fs::write(&target, "the content of another file").expect("written"),
        }
        std::os::unix::fs::symlink(&target, &path).expect("linked");
        let content = || std::fs::read(&target).ok();
        let before = content();
        let finished = setup.run(&[]);
        assert!(!finished.status.success(), "{name}: {finished:?}");
        assert!(finished.stderr.contains(name) && finished.stderr.contains("symbolic link"), "{name}: {finished:?}");
        assert_eq!(content(), before, "{name}");
        std::fs::remove_file(&path).expect("removed");
        match is_there {
            true => rename(&target, &path),
            // SQLite's files come and go.
            false => std::fs::remove_file(&target).expect("removed"),
        }
    }
    assert_eq!(setup.start().stop().status.code(), Some(0));
    // The folder itself may be reached by a link, as on a larger disk.
    let elsewhere = setup.folder().join("elsewhere");
    rename(&setup.data_dir(), &elsewhere);
    std::os::unix::fs::symlink(&elsewhere, setup.data_dir()).expect("linked");
    let server = setup.start();
    let mut client = server.connect();
    let token = setup.run_successfully(&["token", "--sub", "me"]);
    client.call(&post(token.trim(), r#"{"title":"1"}"#)).expect(202);
    std::fs::remove_file(setup.data_dir()).expect("removed");
    client.call(&post(token.trim(), r#"{"title":"lost"}"#)).problem(503);
}

#[test]
fn what_others_have_left_at_a_temporary_name_is_neither_used_nor_followed() {
    let setup = Setup::new().unset("JWT_SECRET");
    assert_eq!(setup.start().stop().status.code(), Some(0));
    let (secret, unfinished) = (setup.data_dir().join("jwt-secret"), setup.data_dir().join("jwt-secret.unfinished"));
    let target = setup.folder().join("target");
    let lay_open_file = || {
        std::fs::write(&unfinished, "made by others").expect("written");
        std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(0o666)).expect("widened");
    };
    let lay_link = || {
        std::fs::write(&target, "the content of another file").expect("written");
        std::os::unix::fs::symlink(&target, &unfinished).expect("linked");
    };
    for lay in [&lay_open_file as &dyn Fn(), &lay_link] {
        std::fs::remove_file(&secret).expect("removed");
        lay();
        assert_eq!(setup.start().stop().status.code(), Some(0));
        let metadata = secret.symlink_metadata().expect("made");
        assert!(metadata.is_file() && metadata.mode() & 0o777 == 0o600, "{metadata:?}");
        assert_eq!(std::fs::read_to_string(&secret).expect("text").trim().len(), 64);
        assert!(unfinished.symlink_metadata().is_err());
    }
    assert_eq!(std::fs::read_to_string(&target).expect("text"), "the content of another file");
}

/// Every token depends on the file at the next start, and none before.
#[test]
fn a_key_that_is_deleted_or_spoilt_under_the_server_is_told_until_it_is_back() {
    let setup = Setup::new().unset("JWT_SECRET");
    let server = setup.start();
    let token = setup.run_successfully(&["token", "--sub", "me"]);
    let mut client = server.connect();
    let mut reason = || {
        let ready = client.call(&get("/ready")).expect(200).json();
        let reasons = ready["reasons"].as_array().expect("a list").clone();
        reasons.iter().find_map(|reason| Some(reason.as_str()?.strip_prefix("data_folder: ")?.to_owned()))
    };
    let key = setup.data_dir().join("jwt-secret");
    let first = std::fs::read(&key).expect("a key");
    let ways: [(&str, &dyn Fn(), &str); 4] = [
        ("deleted", &|| std::fs::remove_file(&key).expect("deleted"), "was deleted or moved away"),
        ("emptied", &|| std::fs::write(&key, "").expect("written"), "holds 0 bytes"),
        ("cut", &|| std::fs::write(&key, "0123456789abcdef").expect("written"), "holds 16 bytes"),
        (
            "replaced",
            &|| {
                std::fs::remove_file(&key).expect("deleted");
                std::fs::create_dir(&key).expect("made");
            },
            "cannot be read",
        ),
    ];
    for (what, take_away, named) in ways {
        take_away();
        let text = eventually(what, &mut reason);
        assert!(text.contains(named) && text.contains("jwt-secret") && text.contains("restart"), "{what}: {text}");
        server.connect().call(&post(token.trim(), r#"{"title":"kept"}"#)).expect(202);
        let _ = std::fs::remove_dir(&key);
        std::fs::write(&key, &first).expect("put back");
        eventually("no reason", || reason().is_none().then_some(()));
    }
    assert!(!server.log().contains("0123456789abcdef"), "keys are not shown");
}

#[test]
fn server_and_tool_read_the_same_key_whatever_stands_around_it() {
    let key = "0123456789abcdef0123456789abcdef";
    for content in [format!("{key}\n"), format!("  {key}"), format!("\n\t{key}\r\n\n"), format!("\u{a0}{key} ")] {
        let setup = Setup::new().unset("JWT_SECRET");
        assert_eq!(setup.start().stop().status.code(), Some(0));
        std::fs::write(setup.data_dir().join("jwt-secret"), &content).expect("written");
        let server = setup.start();
        let token = setup.run_successfully(&["token", "--sub", "me"]);
        server.connect().call(&post(token.trim(), r#"{"title":"1"}"#)).expect(202);
    }
}

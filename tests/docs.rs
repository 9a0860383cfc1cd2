//! What the documents say is what the tree has.

use std::fs;
use std::path::{Path, PathBuf};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The names in a folder, folders with a slash behind them.
fn names_in(folder: &str) -> Vec<String> {
    let name_of = |entry: fs::DirEntry| {
        let slash = if entry.path().is_dir() { "/" } else { "" };
        format!("{}{slash}", entry.file_name().to_str().expect("names are UTF-8"))
    };
    let mut names: Vec<String> = fs::read_dir(path(folder))
        .unwrap_or_else(|error| panic!("{folder}: {error}"))
        .map(|entry| name_of(entry.expect("readable")))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "{folder} is empty");
    names
}

/// All sources below a file or folder.
fn sources_in(room: &str) -> Vec<String> {
    if !path(room).is_dir() {
        return vec![room.to_owned()];
    }
    names_in(room).iter().flat_map(|name| sources_in(&format!("{room}/{}", name.trim_end_matches('/')))).collect()
}

/// The lines of a source that are no comment.
fn code_of(source: &str) -> String {
    read(source).lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_readme_names_both_commands_and_every_call() {
    let readme = read("README.md");
    for words in ["make run", "make test", "/todos", "/todos/{id}", "/health", "/ready", "/metrics"] {
        assert!(readme.contains(words), "README.md does not name {words}");
    }
}

#[test]
fn the_readme_has_the_settings_of_the_table() {
    let readme = read("README.md");
    let begin = readme.find("<!-- settings").expect("README.md has the first marker");
    let begin = begin + readme[begin..].find('\n').expect("the marker has a line of its own") + 1;
    let end = readme.find("<!-- end of settings").expect("README.md has the second marker");
    assert_eq!(readme[begin..end], million_rps::config::markdown(), "run `make settings`");
}

#[test]
fn the_map_has_every_room_and_no_other() {
    let map = read("docs/architecture.md");
    for name in names_in("src") {
        assert!(map.contains(&format!("| `src/{name}` |")), "docs/architecture.md has no line for src/{name}");
    }
    let rooms = map.lines().filter_map(|line| line.strip_prefix("| `src/")?.split('`').next());
    for room in rooms {
        assert!(path("src").join(room).exists(), "docs/architecture.md tells of src/{room}, and there is none");
    }
}

#[test]
fn what_the_map_calls_absent_is_absent() {
    let io: &[&str] = &["std::fs", "std::io", "std::thread", "TcpStream", "UdpSocket", "monoio", "tokio"];
    let above: &[&str] = &["crate::store", "crate::worker", "crate::feed", "crate::process", "crate::cli"];
    for (rooms, absent) in [
        (["src/todo", "src/http", "src/snapshot"].as_slice(), io),
        (["src/shard"].as_slice(), above),
        (
            ["src/cli", "src/process", "src/shard", "src/worker", "src/feed", "src/refresher"].as_slice(),
            &["SELECT ", "INSERT "],
        ),
    ] {
        for source in rooms.iter().flat_map(|room| sources_in(room)) {
            let code = code_of(&source);
            for word in absent {
                assert!(!code.contains(word), "{source} has {word}: see \"What is absent\" in docs/architecture.md");
            }
        }
    }
    let reactor = "src/shard/reactor/";
    let users: Vec<String> =
        sources_in("src").into_iter().filter(|source| code_of(source).contains("io_uring::")).collect();
    assert!(!users.is_empty() && users.iter().all(|source| source.starts_with(reactor)), "{users:?} use the ring");
}

#[test]
fn each_load_says_how_to_run_it() {
    for name in names_in("wrk-scripts") {
        let script = read(&format!("wrk-scripts/{name}"));
        let first = script.lines().next().unwrap_or_default();
        assert!(first.starts_with("-- "), "{name}: {first}");
        assert!(first.contains(&format!("wrk -t1 -c64 -d10s -s wrk-scripts/{name} http://")), "{name}: {first}");
        let stem = name.strip_suffix(".lua").expect("loads are Lua");
        assert!(read("README.md").contains(&format!("`{stem}`")), "README.md does not name {stem}");
    }
}

#[test]
fn every_kernel_setting_says_how_to_look() {
    let settings = read("sysctl.conf");
    let blocks = settings.split("\n\n").filter(|block| block.lines().any(|line| !line.starts_with('#')));
    let mut count = 0;
    for block in blocks {
        assert!(block.contains("# Without: ") && block.contains("# Look: "), "sysctl.conf:\n{block}");
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn the_changelog_has_a_part_for_this_version() {
    let changelog = read("CHANGELOG.md");
    let version = concat!("## ", env!("CARGO_PKG_VERSION"));
    assert!(changelog.contains("\n## Unreleased\n") || changelog.contains(version), "no part for the present version");
}

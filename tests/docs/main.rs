//! What the documents say is what the tree has.

mod imports;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use self::imports::Imports;

/// A longer file holds more than one thing.
const FILE_MAX_LINES: usize = 500;

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
fn the_readme_has_the_limits_of_a_todo() {
    use million_rps::limits::{BODY_MAX_BYTES, DESCRIPTION_MAX_CHARS, HEADERS_MAX, TITLE_MAX_CHARS, USER_ID_MAX_BYTES};
    let readme = read("README.md");
    let thousands = |number: usize| format!("{},{:03}", number / 1000, number % 1000);
    for words in [
        format!("| `title` | text | 1 to `TITLE_MAX_CHARS` ({TITLE_MAX_CHARS}) characters"),
        format!("text | up to `DESCRIPTION_MAX_CHARS` ({}) characters", thousands(DESCRIPTION_MAX_CHARS)),
        format!("1 to {} bytes, no control characters", thousands(USER_ID_MAX_BYTES)),
        format!("A body is at most `BODY_MAX_BYTES` ({} KiB)", BODY_MAX_BYTES / 1024),
    ] {
        assert!(readme.contains(&words), "README.md does not say {words:?}");
    }
    assert!(read("docs/api.md").contains(&format!("| {HEADERS_MAX}: ")), "docs/api.md says how many header fields");
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
fn the_readme_has_the_calls_of_the_table() {
    let readme = read("README.md");
    let begin = readme.find("<!-- routes").expect("README.md has the first marker");
    let begin = begin + readme[begin..].find('\n').expect("the marker has a line of its own") + 1;
    let end = readme.find("<!-- end of routes").expect("README.md has the second marker");
    assert_eq!(readme[begin..end], million_rps::contract::markdown(), "run `make routes`");
}

#[test]
fn the_map_has_every_room_and_no_other() {
    let map = read("docs/architecture.md");
    for name in names_in("src") {
        assert!(map.contains(&format!("| `src/{name}` |")), "docs/architecture.md has no line for src/{name}");
    }
    for name in names_in("crates") {
        assert!(map.contains(&format!("| `crates/{name}` |")), "docs/architecture.md has no line for crates/{name}");
    }
    let rooms = map.lines().filter_map(|line| line.strip_prefix("| `src/")?.split('`').next());
    for room in rooms {
        assert!(path("src").join(room).exists(), "docs/architecture.md tells of src/{room}, and there is none");
    }
}

#[test]
fn what_the_map_calls_absent_is_absent() {
    let io: &[&str] = &["std::fs", "std::io", "std::thread", "TcpStream", "UdpSocket", "monoio", "reactor", "tokio"];
    let above: &[&str] = &["crate::store", "crate::worker", "crate::feed", "crate::process", "crate::cli"];
    for (rooms, absent) in [
        (["src/todo", "src/http", "src/snapshot", "src/change_feed"].as_slice(), io),
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
    let uses_the_ring = |source: &String| code_of(source).contains("io_uring::");
    let users: Vec<String> = sources_in("src").into_iter().filter(uses_the_ring).collect();
    assert!(users.is_empty(), "{users:?} use the ring");
    assert!(sources_in("crates/reactor/src").iter().any(uses_the_ring), "the ring is used by the reactor");
}

/// The code of a source without its tests, which stand at its end or in files of their own.
fn code_outside_tests(source: &str) -> String {
    let is_for_tests = source.ends_with("tests.rs") || source.contains("histories/");
    if is_for_tests {
        return String::new();
    }
    let code = code_of(source);
    code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
}

#[test]
fn the_members_of_a_todo_stand_in_one_room() {
    let members = &million_rps::todo::TODO_COLUMNS;
    let members: Vec<&str> = members.iter().map(|column| column.name).collect();
    let given = |name: &&str| !["id", "user_id", "created_at", "updated_at"].contains(name);
    let given: Vec<&str> = members.into_iter().filter(given).collect();
    assert!(given.contains(&"title"), "{given:?}");
    let has_word = |code: &str, word: &str| {
        let is_part = |character: char| character.is_alphanumeric() || character == '_';
        code.match_indices(word)
            .any(|(at, _)| !code[..at].ends_with(is_part) && !code[at + word.len()..].starts_with(is_part))
    };
    let mut looked_at = 0;
    for room in ["store", "shard", "feed", "command_log", "worker", "snapshot", "refresher", "change_feed", "wires"] {
        let sources = sources_in(&format!("src/{room}"));
        for source in sources.iter().filter(|source| [".rs", ".lua"].iter().any(|end| source.ends_with(end))) {
            let code = code_outside_tests(source);
            looked_at += 1;
            for name in &given {
                assert!(!has_word(&code, name), "{source} knows the member {name}: see src/todo/columns.rs");
            }
        }
    }
    assert!(looked_at > 100, "{looked_at} files");
    assert!(has_word(&code_of("src/todo/columns.rs"), "title"), "the search finds what is there");
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    for root in ["src", "crates/reactor/src"] {
        let sources = sources_in(root).into_iter().filter(|source| source.ends_with(".rs"));
        let sources: Vec<_> = sources.map(|source| (source.clone(), code_of(&source))).collect();
        let imports = Imports::of(root, &sources);
        assert!(imports.count() > sources.len(), "{root}: {} files use {} others", sources.len(), imports.count());
        assert_eq!(imports.circle(), None, "see \"What is absent\" in docs/architecture.md");
    }
}

#[test]
fn no_file_is_longer_than_it_may_be() {
    for source in ["src", "crates"].iter().flat_map(|room| sources_in(room)).filter(|source| source.ends_with(".rs")) {
        let lines = read(&source).lines().count();
        assert!(lines <= FILE_MAX_LINES, "{source} has {lines} lines, and may have {FILE_MAX_LINES}: split it by noun");
    }
}

#[test]
fn the_reactor_knows_nothing_of_the_product() {
    let manifest = read("crates/reactor/Cargo.toml");
    assert!(!manifest.contains("path ="), "crates/reactor builds on a crate of the product");
    for source in sources_in("crates/reactor/src") {
        let code = code_of(&source).to_lowercase();
        for word in ["million_rps", "http", "todos", "snapshot", "shard"] {
            assert!(!code.contains(word), "{source} has {word}: the reactor ends at bytes");
        }
    }
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

/// Files below a folder whose names end so, without what is built.
fn files_below(folder: &str, ending: &str) -> Vec<String> {
    let within = |name: String| match name.strip_suffix('/') {
        Some("target" | ".git" | "data") => Vec::new(),
        Some(name) => files_below(&format!("{folder}{name}/"), ending),
        None if name.ends_with(ending) => vec![format!("{folder}{name}")],
        None => Vec::new(),
    };
    let folder = if folder.is_empty() { "." } else { folder };
    names_in(folder).into_iter().flat_map(within).collect()
}

/// The headings of a document, as the ends of links to them.
fn headings_of(document: &str) -> Vec<String> {
    let anchor = |heading: &str| {
        let kept = heading.trim_matches(['#', ' ']).chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
    };
    read(document).lines().filter(|line| line.starts_with('#')).map(anchor).collect()
}

#[test]
fn links_between_documents_hold() {
    let mut count = 0;
    for document in files_below("", ".md") {
        let folder = Path::new(&document).parent().expect("a file is in a folder");
        for link in read(&document).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { PathBuf::from(&document) } else { folder.join(file) };
            let target = target.to_str().expect("names are UTF-8");
            assert!(path(target).exists(), "{document} has a link to {link}, and there is no {target}");
            let holds = heading.is_empty() || headings_of(target).iter().any(|found| found == heading);
            assert!(holds, "{document} has a link to {link}, and {target} has no such heading");
            count += 1;
        }
    }
    assert!(count > 0);
}

/// Cargo.toml says that these have no tests and no examples, so that none is built for them; what stood there would never run.
#[test]
fn what_is_not_built_for_tests_has_none() {
    let mut count = 0;
    for program in ["src/main.rs", "bench/src/bin/floor_epoll.rs", "bench/src/bin/floor_uring.rs"] {
        assert!(
            !read(program).contains("#[test]"),
            "{program} has a test, which `test = false` keeps from being built"
        );
    }
    for source in ["src/", "bench/src/"].into_iter().flat_map(|folder| files_below(folder, ".rs")) {
        let text = read(&source);
        let comments = text.lines().filter_map(|line| line.trim_start().strip_prefix("//"));
        let fences = comments.filter_map(|line| line.trim_start_matches(['/', '!', ' ']).strip_prefix("```"));
        for language in fences.step_by(2) {
            assert_eq!(language, "text", "{source} has an example, which `doctest = false` keeps from being tried");
            count += 1;
        }
    }
    assert!(count > 0, "no fence was found");
}

#[test]
fn paths_that_documents_and_comments_name_are_there() {
    const TOP: [&str; 9] =
        ["src/", "tests/", "docs/", "bench/", "deploy/", "wrk-scripts/", "crates/", ".ci/", ".github/"];
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let comments = |source: &String| {
        let lines = read(source);
        lines.lines().filter(|line| line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    };
    let scripts =
        ["Makefile", ".ci/run", ".github/workflows/ci.yml", "tests/run.sh", "tests/lane.sh"].map(String::from);
    let documents = files_below("", ".md").into_iter().chain(scripts).map(|name| (read(&name), name));
    let sources = ["src/", "crates/", "tests/", "bench/"].into_iter().flat_map(|folder| files_below(folder, ".rs"));
    let mut count = 0;
    for (text, name) in documents.chain(sources.map(|name| (comments(&name), name))) {
        for word in text.split(|c| !is_part(c)).filter(|word| TOP.iter().any(|top| word.starts_with(top))) {
            let named = word.trim_end_matches(['.', '-']);
            assert!(path(named).exists(), "{name} names {named}, and there is none");
            count += 1;
        }
    }
    assert!(count > 0);
}

#[test]
fn each_decision_is_a_page_and_the_index_has_it() {
    let index = read("docs/decisions/README.md");
    let pages = names_in("docs/decisions").into_iter().filter(|name| name != "README.md");
    for (place, name) in (1..).zip(pages) {
        assert!(name.starts_with(&format!("{place:02}-")), "docs/decisions/{name} is number {place} of its folder");
        let page = read(&format!("docs/decisions/{name}"));
        let title = page.lines().next().and_then(|line| line.strip_prefix("# ")).expect("a title");
        assert!(
            index.contains(&format!("- [{place:02}]({name}) {title}\n")),
            "docs/decisions/README.md has no line for {name}, {title}"
        );
        let parts: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert!(parts.starts_with(&["Context", "Choice", "Price"]), "docs/decisions/{name} has {parts:?}");
        let is_known = |part: &&str| ["Figure", "Tried without gain"].contains(part);
        assert!(parts[3..].iter().all(is_known), "docs/decisions/{name} has {parts:?}");
    }
}

#[test]
fn the_changelog_has_a_part_for_this_version() {
    let changelog = read("CHANGELOG.md");
    let version = concat!("## ", env!("CARGO_PKG_VERSION"));
    assert!(changelog.contains("\n## Unreleased\n") || changelog.contains(version), "no part for the present version");
    // A merge of two branches that both add lines brings an old list back easily.
    let of_no_group = ["### Added", "### Changed", "### Fixed"];
    let stray = changelog.lines().find(|line| of_no_group.contains(line));
    assert_eq!(stray, None, "CHANGELOG.md: put these lines into the groups that their readers would look in");
}

/// A machine as the scripts see it: these programs and no others.
struct Bare {
    folder: tempfile::TempDir,
}

impl Bare {
    /// With what every Debian has, and a Rust that is new enough.
    fn new() -> Bare {
        let bare = Bare { folder: tempfile::tempdir().expect("a folder") };
        for name in
            ["sh", "env", "dirname", "sed", "sort", "cut", "head", "tail", "grep", "id", "mktemp", "rm", "cat", "tr"]
        {
            let places = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(name));
            let place = places.iter().find(|place| place.exists()).unwrap_or_else(|| panic!("no {name}"));
            std::os::unix::fs::symlink(place, bare.folder.path().join(name)).expect("a link");
        }
        bare.add("cargo", "echo cargo 99.0.0");
        bare
    }

    fn add(&self, name: &str, script: &str) {
        let path = self.folder.path().join(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("it is written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode is set");
    }

    fn run(&self, script: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(path(script));
        command.args(arguments).env_clear().env("PATH", self.folder.path()).env("HOME", self.folder.path());
        command.env("STATE", self.folder.path()).output().expect("the script runs")
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn what_is_missing_comes_in_one_list() {
    let bare = Bare::new();
    let purposes = ["build", "services", "servers", "test", "load"];
    let output = bare.run("deploy/setup.sh", &purposes);
    let said = text_of(&output.stderr);
    assert!(!output.status.success(), "{said}");
    let lists: Vec<_> = said.lines().filter(|line| line.contains("missing")).collect();
    assert_eq!(lists.len(), 1, "{said}");
    let packages =
        ["build-essential", "curl", "default-jre-headless", "libssl-dev", "maven", "openssl", "redis-server", "wrk"];
    for package in packages {
        assert!(lists[0].contains(&format!(" {package}")), "{package}: {said}");
    }
    // Without a toolchain that says so, too, the rest of the list is still there.
    bare.add("cargo", "echo cargo 1.2.0");
    let said = text_of(&bare.run("deploy/setup.sh", &purposes).stderr);
    assert!(said.contains("this is 1.2.0") && said.contains(" curl "), "{said}");
}

#[test]
fn a_sudo_that_asks_for_no_password_is_used() {
    let bare = Bare::new();
    bare.add("id", "echo 1000");
    bare.add("sudo", "echo \"$*\" >> \"$STATE/asked\"");
    bare.add("apt-get", "exit 1");
    let output = bare.run("deploy/services.sh", &["install"]);
    let asked = fs::read_to_string(bare.folder.path().join("asked")).unwrap_or_default();
    let installed = asked.lines().find(|line| line.contains("apt-get install")).unwrap_or_default();
    for package in ["openssl", "redis-server", "maven"] {
        assert!(installed.contains(&format!(" {package}")), "{package}: {asked}\n{}", text_of(&output.stderr));
    }
    // One that asks is not; then the whole list is there to be typed.
    bare.add("sudo", "exit 1");
    let said = text_of(&bare.run("deploy/services.sh", &["install"]).stderr);
    assert!(said.contains("sudo apt-get install ") && said.contains(" openssl "), "{said}");
}

#[test]
fn a_load_without_its_token_says_what_to_do() {
    for name in names_in("wrk-scripts") {
        let script = read(&format!("wrk-scripts/{name}"));
        assert!(!script.contains("getenv") || script.contains("TOKEN is not set"), "{name}");
    }
}

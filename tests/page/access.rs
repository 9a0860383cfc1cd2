//! For everybody: by keyboard alone, and by what axe-core finds.

use std::path::Path;

use serde_json::json;

use crate::harness::eventually;
use crate::harness::request::{get, post};
use crate::harness::server::{Server, Setup};
use crate::harness::token::token;
use crate::window::Window;
use crate::{open_as, window_as};

#[test]
fn the_keyboard_alone_is_enough() {
    let server = Setup::new().start();
    let window = Window::open(&server.page_address());
    window.wait_live();
    window.wait("the way in", "$('mint').checkVisibility()");
    let tab_to = |selector: &str| {
        for _ in 0..30 {
            if window.look(&format!("document.activeElement.matches({selector:?})")) == true {
                return;
            }
            window.press("Tab");
        }
        panic!("Tab does not come to {selector}: {}", window.text("document.activeElement.outerHTML"));
    };
    tab_to("#mint-name");
    window.press("Enter");
    window.wait("the focus is where one goes on", "document.activeElement === $('title')");
    for title in ["one", "two", "three"] {
        window.type_text(title);
        window.press("Enter");
        window.wait_first(title);
    }
    tab_to(".tick");
    let at = |title: &str| {
        window.wait(
            title,
            &format!("document.activeElement.closest('.row')?.querySelector('.name').textContent === {title:?}"),
        );
    };
    at("three");
    window.press("ArrowDown");
    at("two");
    window.press("Space");
    let todo = |title: &str| {
        let list = server.connect().call(&get("/todos")).expect(200).json();
        list.as_array().expect("a list").iter().find(|todo| todo["title"] == title).cloned()
    };
    eventually("the tick", || todo("two").filter(|todo| todo["completed"] == true));
    window.press("Enter");
    window.wait("the editor", "document.activeElement.name === 'title'");
    window.press("Escape");
    window.wait("no editor", "editing === null && document.activeElement.matches('.name')");
    window.press("Enter");
    window.wait("the editor", "document.activeElement.name === 'title'");
    window.type_text("two and a half");
    window.press("Enter");
    eventually("the edit", || todo("two and a half"));
    at("two and a half");
    window.press("End");
    at("one");
    window.press("Delete");
    eventually("the deletion", || todo("one").is_none().then_some(()));
    // The focus has somewhere to be when its row has gone.
    at("three");
    window.press("Home");
    at("three");
    // One press leads out of the list again, however long it is.
    window.press("Shift+Tab");
    window.press("Shift+Tab");
    window
        .wait("out of the list", "!document.activeElement.closest('#rows') || document.activeElement.closest('.row')");
    tab_to("summary");
}

/// Runs axe-core, which `deploy/corpora.sh` fetches.
fn findings(window: &Window) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/corpora/axe-core-4.14.1/axe.min.js");
    let script = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; deploy/corpora.sh fetches it", path.display()));
    window.look(&format!("{script}; 0"));
    let found = window
        .look("axe.run(document, { resultTypes: ['violations', 'incomplete'] }).then(result => result.violations)");
    let found = found.as_array().expect("a list").clone();
    found.iter().map(|violation| format!("{}: {}", violation["id"], violation["nodes"])).collect()
}

fn fill(server: &Server) {
    for (user, title, done) in
        [("me", "mine", false), ("you", "yours", true), ("me", "done", true), ("me", "עברית", false)]
    {
        let body = json!({ "title": title, "description": "more of it", "completed": done }).to_string();
        server.connect().call(&post(&token(user), body).field("Prefer", "wait=10")).expect(202);
    }
}

#[test]
fn axe_finds_nothing() {
    let server = Setup::new().set("TITLE_MAX_CHARS", "20").start();
    fill(&server);
    let window = window_as(&server, "me");
    window.wait("the rows", "rows.size === 4");
    window.wait("the plots", "document.querySelectorAll('polyline').length >= 6");
    for scheme in ["light", "dark"] {
        window.prefer(&[("prefers-color-scheme", scheme)]);
        for (width, height) in [(1280, 800), (390, 844)] {
            window.resize(width, height);
            assert_eq!(findings(&window), Vec::<String>::new(), "{scheme}, {width}");
        }
        window.resize(1280, 800);
        // While something is refused, something is edited, and nothing is well.
        window.type_into("#title", "far too long for a title here");
        window.press("Enter");
        window.wait("the refusal", "document.querySelector('#outbox .trouble')");
        window.click("#rows .mine .name");
        window.wait("the editor", "editing");
        window.look("feed.reason = 'for the test', setFeed('lost')");
        assert_eq!(findings(&window), Vec::<String>::new(), "{scheme}, in trouble");
        window.look("setFeed('live')");
        window.press("Escape");
        window.click("#outbox button:last-of-type");
        window.wait("the outbox is empty", "$('outbox').childElementCount === 0");
    }
    window.click("#sign-out");
    window.wait("the way in", "$('signed-out').checkVisibility()");
    assert_eq!(findings(&window), Vec::<String>::new(), "signed out");
}

#[test]
fn what_others_do_is_not_read_out() {
    let (server, window) = open_as("me");
    for region in ["[role=status]", "[role=alert]", "[aria-live]"] {
        window.look(&format!(
            "for (const region of document.querySelectorAll('{region}')) new MutationObserver(list => \
             (window.spoken ??= []).push(region.id)).observe(region, {{ childList: true, characterData: true, subtree: true }})"
        ));
    }
    fill(&server);
    window.wait("the rows", "rows.size === 4");
    // What is to be read out is written a moment after what it is about.
    window.look("setTimeout(() => { window.isLater = true; }, 1000)");
    window.wait("a second", "window.isLater");
    assert_eq!(window.look("window.spoken ?? []"), json!([]));
    // The observers hear what is.
    window.look("say('a word')");
    window.wait("a word", "window.spoken?.includes('said')");
}

#[test]
fn nothing_moves_for_who_wants_rest() {
    let (server, window) = open_as("me");
    window.prefer(&[("prefers-reduced-motion", "reduce")]);
    fill(&server);
    window.wait("the rows", "rows.size === 4");
    window.click("#rows .mine .tick");
    window.wait("shown", "[...document.querySelectorAll('#rows .state')].some(state => state.textContent === 'shown')");
    assert_eq!(window.look("document.getAnimations().length"), 0);
}

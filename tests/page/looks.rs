//! Pictures of the page, kept in `target/page/` to be looked at; and that it fits every width.

use serde_json::json;

use crate::harness::request::post;
use crate::harness::server::Setup;
use crate::harness::token::token;
use crate::window_as;

const TODOS: [(&str, &str, &str, bool); 10] = [
    ("mara", "Order wire for the fence", "60 m, the thick one", true),
    ("me", "Call the bank about the transfer", "", false),
    ("me", "לקנות חלב ולחם", "לפני שבת", false),
    (
        "jonas",
        "Fix the gutter above the kitchen window before it rains again, and look whether the downpipe is blocked as well",
        "ladder is at Mara's",
        false,
    ),
    ("me", "Book the ferry 🛳️", "Tuesday if there is one", true),
    ("mara", "اشتر الزهور للجدة", "", false),
    ("me", "<b>Not bold</b>", "a title may hold anything", false),
    ("jonas", "Bring the books back", "three of them, and the one under the bed", false),
    ("me", "Water the plants 🌱", "but not the cactus", true),
    ("me", "Write to Ines", "", false),
];

#[test]
fn it_looks_well_in_light_and_dark_and_on_a_phone() {
    let server = Setup::new().set("SHARDS", "2").start();
    for (user, title, description, completed) in TODOS {
        let body = json!({ "title": title, "description": description, "completed": completed }).to_string();
        server.connect().call(&post(&token(user), body).field("Prefer", "wait=10")).expect(202);
    }
    let window = window_as(&server, "me");
    window.wait("the rows", "rows.size === 10");
    window.wait("the plots", "plots[0].history.length >= 3");
    for (name, scheme, width, height) in [
        ("light", "light", 1280, 800),
        ("dark", "dark", 1280, 800),
        ("wide", "light", 1920, 1080),
        ("tablet", "light", 800, 1000),
        ("phone", "light", 390, 844),
        ("phone-dark", "dark", 390, 844),
        ("small", "light", 320, 568),
    ] {
        window.prefer(&[("prefers-color-scheme", scheme)]);
        window.resize(width, height);
        // As a page of this width begins.
        window.look(&format!("$('machine').open = {width} > 960"));
        window
            .look("new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve))).then(() => 0)");
        assert_eq!(
            window.look("document.documentElement.scrollWidth <= innerWidth"),
            true,
            "{name} does not scroll sideways"
        );
        assert_eq!(
            window.look("document.documentElement.scrollHeight <= innerHeight"),
            true,
            "{name}: the list scrolls alone"
        );
        let rows = window.look("$('list').clientHeight / view.rowHeight").as_f64().expect("a number");
        assert!(rows >= 2.0, "{name}: {rows} rows can be seen");
        window.keep_picture(name);
    }
    window.prefer(&[("prefers-color-scheme", "light")]);
    // Low windows scroll as a whole, so that nothing lies under something else.
    for (name, width, height) in [("landscape", 667, 375), ("low", 320, 500)] {
        window.resize(width, height);
        window.look("$('machine').open = true, new Promise(resolve => setTimeout(resolve, 100)).then(() => 0)");
        let apart = "$('todos').getBoundingClientRect().bottom <= $('machine').getBoundingClientRect().top";
        assert_eq!(window.look(apart), true, "{name}: the machine stands below the list");
        assert!(window.look("$('list').clientHeight / view.rowHeight").as_f64().expect("a number") >= 2.0, "{name}");
        window.keep_picture(name);
        window.click("summary");
        window.wait("it is closed", "!$('machine').open");
    }
    window.look("scrollTo(0, 0)");
    window.resize(1280, 800);
    window.click("#rows .mine .name");
    window.wait("the editor", "editing");
    window.keep_picture("editing");
    window.press("Escape");
    window.look("write('update', null, 'Book the ferry', {}).state, 0");
    window.wait("a refusal", "document.querySelector('#outbox .trouble')");
    window.keep_picture("refused");
    window.click("#outbox button:last-of-type");
    window.click("#sign-out");
    window.wait("the way in", "$('signed-out').checkVisibility()");
    window.keep_picture("signed-out");
    window.resize(390, 844);
    window.look("$('machine').open = true, new Promise(resolve => setTimeout(resolve, 100)).then(() => 0)");
    window.keep_picture("phone-machine");
}

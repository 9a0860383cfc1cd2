//! Long lists, and texts that try to be more.

use serde_json::json;

use crate::harness::eventually;
use crate::harness::request::{get, post};
use crate::harness::server::Setup;
use crate::harness::token::token;
use crate::{open_as, window_as};

/// Whether the rows that can be seen are those that belong there, without a gap.
const IS_WHOLE: &str = "(() => { \
    const list = $('list').getBoundingClientRect(); \
    const seen = [...rows.values()].map(row => [row.getBoundingClientRect(), row]).filter(([box]) => box.bottom > list.top && box.top < list.bottom) \
        .sort((one, other) => one[0].top - other[0].top); \
    return seen.length > 5 && seen[0][0].top <= list.top + 2 && seen.at(-1)[0].bottom >= list.bottom - 2 && \
        seen.every(([box, row], at) => (at === 0 || Math.abs(box.top - seen[at - 1][0].bottom) < 1) && \
            row.querySelector('.name').textContent === todoAt(shown(), row.getAttribute('aria-posinset') - 1).title); })()";

#[test]
fn ten_thousand_todos_scroll_fast() {
    let setup = Setup::new();
    setup.run_successfully(&["seed", "--count", "10000"]);
    let server = setup.start();
    let window = window_as(&server, "me");
    window.wait("the first page", "order.length >= 100");
    for turn in 0..60 {
        window.wheel(if turn % 4 == 3 { -900 } else { 2400 });
        let rows = window.look("rows.size").as_u64().expect("a number");
        assert!(rows < 60, "only what can be seen exists: {rows} rows");
    }
    window.wait("what belongs there", IS_WHOLE);
    // By the scroll bar, from end to end.
    window.look("$('list').scrollTop = 1e9");
    window.wait("the next pages", "order.length > 2000");
    for _ in 0..12 {
        window.look("$('list').scrollTop = 1e9");
        window.wait("what belongs there", IS_WHOLE);
    }
    window.wait("the whole list", "$('list').scrollTop = 1e9, next === null && order.length === 10000");
    window.wait("what belongs there", IS_WHOLE);
    window.wait("the last row", "$('list').scrollTop = 1e9, document.querySelector('[aria-posinset=\"10000\"]')");
    window.wait("what belongs there", IS_WHOLE);
    // A change far above moves nothing under the eyes.
    let before = window.look(
        "[...rows.values()].find(row => row.getBoundingClientRect().top > $('list').getBoundingClientRect().top).id_",
    );
    let place = format!("rows.get({before}).getBoundingClientRect().top");
    let top = window.look(&place);
    server.connect().call(&post(&token("you"), r#"{"title":"on top"}"#).field("Prefer", "wait=10")).expect(202);
    window.wait("the new todo", "order.length === 10001 && !isAwaited");
    assert!((window.look(&place).as_f64().expect("a place") - top.as_f64().expect("a place")).abs() < 2.0);
    window.look("$('list').scrollTop = 0");
    window.wait_first("on top");
    assert!(window.look("rows.size").as_u64().expect("a number") < 60);
}

#[test]
fn a_list_longer_than_a_page_may_be_high_has_every_row() {
    let (_server, window) = open_as("me");
    // A million todos are made up in the page itself: what is tried is its rows.
    window.look(
        "takeList({ next: null, todos: Array.from({ length: 1000000 }, (_, at) => ({ id: String(1e9 - at), title: `todo ${at}`, \
         description: '', completed: false, user_id: 'me', created_at: String(1e9 - at), updated_at: '2026-01-01T00:00:00Z' })) }), draw()",
    );
    window.wait("the first row", "document.querySelector('[aria-posinset=\"1\"]')");
    for share in [0.1, 0.5, 0.500001, 0.9, 1.0, 0.25] {
        window.look(&format!("$('list').scrollTop = {share} * ($('list').scrollHeight - $('list').clientHeight)"));
        window.wait("what belongs there", IS_WHOLE);
        let at = window
            .look("Math.min(...[...rows.values()].map(row => +row.getAttribute('aria-posinset')))")
            .as_f64()
            .expect("a row");
        assert!((at / 1e6 - share).abs() < 0.01, "{share}: row {at}");
        for _ in 0..5 {
            window.wheel(700);
            window.wait("what belongs there", IS_WHOLE);
        }
    }
    window.look("$('list').scrollTop = 1e9");
    window.wait("the last row", "document.querySelector('[aria-posinset=\"1000000\"]')");
    window.wait("what belongs there", IS_WHOLE);
    assert!(window.look("rows.size").as_u64().expect("a number") < 60);
}

#[test]
fn a_page_that_does_not_come_is_asked_for_ever_less_often() {
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
    let setup = Setup::new().set("HTTP_PORT", &port.to_string());
    setup.run_successfully(&["seed", "--count", "3000"]);
    let server = setup.start();
    let window = window_as(&server, "me");
    window.wait("the second page", "order.length === 1100 && !meanwhile");
    server.kill();
    window.look("window.asked = 0, window.passOn = fetch, window.fetch = (url, ...more) => (/cursor=/.test(url) && asked++, passOn(url, ...more)), 0");
    window.look("$('list').scrollTop = 1e9");
    window.wait("a page was asked for", "asked > 0 && !meanwhile");
    window.look("(async () => { for (let n = 0; n < 100; n++) await new Promise(resolve => { draw(); requestAnimationFrame(resolve); }); })()");
    let asked = window.look("asked").as_u64().expect("a number");
    assert!(asked < 15, "{asked} times within a hundred frames");
    window.wait("it is told", "$('said').textContent !== ''");
    let _server = setup.start();
    window.wait("the whole list", "$('list').scrollTop = 1e9, next === null && order.length === 3000");
}

#[test]
fn markup_in_a_todo_is_text() {
    let (server, window) = open_as("me");
    let titles = [
        "<img src=x onerror=document.title='hacked'>",
        "</script><script>document.title='hacked'</script>",
        "<b>bold</b> & \"quoted\" 'too'",
        "\u{202e}reversed\u{202c} and עברית",
        "🦀🇨🇭👩‍👩‍👧 emoji",
    ];
    for title in titles {
        let body = json!({ "title": title, "description": "<h1>large</h1>" }).to_string();
        server.connect().call(&post(&token("<i>me</i>"), body).field("Prefer", "wait=10")).expect(202);
        window.wait_first(title);
    }
    assert_eq!(
        window.look("document.querySelectorAll('#rows img, #rows script, #rows b, #rows h1, #rows i').length"),
        0
    );
    assert_eq!(window.text("document.title"), "Todos – million-rps");
    assert!(window.text("document.querySelector('#rows .more').textContent").contains("<h1>large</h1> · <i>me</i>"));
    // And in what is written here.
    window.type_into("#title", titles[0]);
    window.press("Enter");
    window.wait("the seventh", "order.length === 6");
    window.wait_first(titles[0]);
    // The page's connection may be at another shard than this one.
    let first = || server.connect().call(&get("/todos?limit=1")).expect(200).json()[0]["title"].clone();
    eventually("it in the list", || (first() == titles[0]).then_some(()));
}

#[test]
fn the_filter_is_of_what_is_loaded_and_says_so() {
    let setup = Setup::new();
    setup.run_successfully(&["seed", "--count", "3000"]);
    let server = setup.start();
    for (user, title) in [("me", "find the needle"), ("you", "another NEEDLE"), ("me", "hay")] {
        let body = json!({ "title": title }).to_string();
        server.connect().call(&post(&token(user), body).field("Prefer", "wait=10")).expect(202);
    }
    let window = window_as(&server, "me");
    window.type_into("#filter", "needle");
    window.wait("both", "rows.size === 2");
    assert_eq!(window.titles(), ["another NEEDLE", "find the needle"]);
    window.wait("the count", "/^2 match in the [\\d,]+ of 3,003 loaded$/.test($('count').textContent)");
    window.click("#only-mine");
    window.wait("mine", "rows.size === 1");
    assert_eq!(window.titles(), ["find the needle"]);
    window.click("#rows .tick");
    window.click("#only-open");
    window.wait("none", "rows.size === 0 && $('empty').innerText === 'Nothing that is loaded matches.'");
    window.click("#more");
    window.wait("everything", "order.length === 3003 && $('more').hidden");
}

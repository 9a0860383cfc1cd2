//! The list follows what others do, over restarts, and says when it cannot.

use serde_json::json;

use crate::harness::eventually;
use crate::harness::request::{delete, post, put};
use crate::harness::server::Setup;
use crate::harness::token::token;
use crate::window::Window;
use crate::{open_as, window_as};

fn add(window: &Window, title: &str) {
    window.type_into("#title", title);
    window.press("Enter");
}

#[test]
fn two_windows_follow_each_other() {
    let (server, mine) = open_as("me");
    let theirs = window_as(&server, "them");
    add(&mine, "from me");
    theirs.wait_first("from me");
    add(&theirs, "from them");
    for window in [&mine, &theirs] {
        window.wait_first("from them");
    }
    // Until a window has drawn its own todo, the other's is its first, which it may not change.
    theirs.click("#rows .row:first-child .tick");
    mine.wait("the tick", "document.querySelector('#rows .row:first-child').classList.contains('done')");
    mine.click("#rows .row:nth-child(2) .delete");
    for window in [&mine, &theirs] {
        window.wait("the deletion", "rows.size === 1 && order.length === 1");
    }
    assert_eq!((mine.titles(), theirs.titles()), (vec!["from them".to_owned()], vec!["from them".to_owned()]));
}

#[test]
fn a_restart_of_the_server_is_told_and_heals() {
    // The same port again, so the page finds the server where it was.
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
    let setup = Setup::new().set("HTTP_PORT", &port.to_string());
    let server = setup.start();
    let window = window_as(&server, "me");
    add(&window, "before");
    window.wait_first("before");
    server.kill();
    window.wait("the banner", "$('banner').checkVisibility() && $('banner').innerText.includes('out of date')");
    add(&window, "while it was away");
    window.wait("the refusal", "$('outbox').innerText.includes('did not answer')");
    assert_eq!(window.titles(), ["before"], "what was seen stays");
    let server = setup.start();
    window.wait("the banner is gone", "!$('banner').checkVisibility() && $('live').dataset.state === 'live'");
    window.click("#outbox button");
    window.wait_first("while it was away");
    server.connect().call(&post(&token("you"), r#"{"title":"after"}"#)).expect(202);
    window.wait_first("after");
    assert_eq!(window.titles(), ["after", "while it was away", "before"]);
}

#[test]
fn a_list_that_is_stale_says_so_until_it_is_not() {
    let (server, window) = open_as("me");
    add(&window, "seen");
    window.wait_first("seen");
    let store = server.setup().data_dir().join("todos.sqlite");
    let aside = server.setup().data_dir().join("aside");
    std::fs::rename(&store, &aside).expect("the store is moved");
    window.wait("the banner", "$('banner').checkVisibility() && $('banner').innerText.includes('out of date')");
    assert_eq!(window.titles(), ["seen"]);
    window.keep_picture("stale");
    std::fs::rename(&aside, &store).expect("the store comes back");
    window.wait("the banner is gone", "!$('banner').checkVisibility()");
    // A server that does not answer at all.
    server.process.signal(libc::SIGSTOP);
    window.wait("the banner", "$('banner').innerText.includes('does not answer')");
    server.process.signal(libc::SIGCONT);
    window.wait("the banner is gone", "!$('banner').checkVisibility()");
}

#[test]
fn many_changes_at_once_end_in_the_servers_list() {
    let (server, window) = open_as("me");
    let (mut client, token) = (server.connect(), token("you"));
    let mut ids = Vec::new();
    for batch in 0..10 {
        let requests: Vec<u8> = (0..50)
            .flat_map(|number| post(&token, json!({ "title": format!("{batch}-{number}") }).to_string()).bytes())
            .collect();
        client.send(requests);
        for _ in 0..50 {
            ids.push(client.answer().expect(202).json()["id"].as_str().expect("an id").to_owned());
        }
    }
    for (at, id) in ids.iter().enumerate() {
        match at % 3 {
            0 => drop(client.call(&delete(&token, id)).expect(202)),
            1 => drop(client.call(&put(&token, id, r#"{"completed":true}"#)).expect(202)),
            _ => {}
        }
    }
    let same = "get('/todos').then(answer => answer.json()).then(list => list.length > 300 && list.length === order.length && \
                list.every((todo, at) => { const mine = todoAt(order, at); return mine.id === todo.id && mine.completed === todo.completed; }))";
    eventually("the same list", || (window.look(same) == json!(true)).then_some(()));
}

#[test]
fn silence_is_longer_than_the_servers_heartbeat() {
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
    let start = |heartbeat_s: u32| {
        let setup = Setup::new().set("HTTP_PORT", &port.to_string());
        setup.set("EVENTS_HEARTBEAT_SEC", &heartbeat_s.to_string()).start()
    };
    let server = start(300);
    let window = window_as(&server, "me");
    window.wait("more patience than for a heartbeat", "silenceMs() > 2 * 300e3");
    server.kill();
    // The next process on this port has another setting, and the page is still open.
    let server = start(1);
    window.wait("less patience", "silenceMs() < 15e3 && $('live').dataset.state === 'live'");
    server.process.signal(libc::SIGSTOP);
    window.wait("the feed is lost", "feed.state === 'lost'");
    server.process.signal(libc::SIGCONT);
    window.wait("the feed", "$('live').dataset.state === 'live' && !$('banner').checkVisibility()");
}

//! The page under load: a thousand changes a second, which it draws once a frame.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::eventually;
use crate::harness::request::{delete, post, put};
use crate::harness::server::Server;
use crate::harness::token::token;
use crate::open_as;

const SECONDS: u32 = 5;
/// Changes of a batch, and batches of a second.
const CHANGES: usize = 50;
const BATCHES: u32 = 20;

/// A thousand changes a second: creates, which push the list down, ticks of what can be seen, deletions.
fn change(server: &Server) {
    let (mut client, token) = (server.connect(), token("you"));
    let mut ids: Vec<String> = Vec::new();
    let start = Instant::now();
    for batch in 0..SECONDS * BATCHES {
        let mut requests = Vec::new();
        for number in 0..CHANGES {
            let recent = ids.len().checked_sub(1 + number);
            let request = match (number % 5, recent) {
                (0 | 1, _) | (_, None) => {
                    post(&token, json!({ "title": format!("todo {batch}-{number}") }).to_string())
                }
                (2 | 3, Some(at)) => put(
                    &token,
                    &ids[at],
                    json!({ "completed": number % 2 == 0, "title": format!("changed {batch}") }).to_string(),
                ),
                (_, Some(at)) => delete(&token, &ids[at]),
            };
            requests.extend_from_slice(&request.bytes());
        }
        client.send(requests);
        for number in 0..CHANGES {
            let id = client.answer().expect(202).json()["id"].as_str().expect("an id").to_owned();
            if number % 5 < 2 {
                ids.push(id);
            }
        }
        std::thread::sleep(
            (start + (batch + 1) * Duration::from_secs(1) / BATCHES).saturating_duration_since(Instant::now()),
        );
    }
    let changes = SECONDS as usize * BATCHES as usize * CHANGES;
    println!("{:.0} changes/s", changes as f64 / start.elapsed().as_secs_f64());
}

/// How many frames a second the page came to is printed, for whoever looks (`-- frames --nocapture`): it depends on the machine.
#[test]
fn a_thousand_changes_a_second_end_in_the_servers_list() {
    let (server, window) = open_as("me");
    window.look(
        "window.frames_ = 0, window.longest = 0, window.from = performance.now(), (function frame(last) { requestAnimationFrame(now => { \
         frames_++; longest = Math.max(longest, now - last); frame(now); }); })(performance.now()), \
         window.drawing = window.draws = window.batches = window.drawn = 0, (draw_ => { drawNow = () => { const from = performance.now(); \
         draws++; drawn += arrived.length; draw_(); drawing += performance.now() - from; }; })(drawNow), \
         (take => { takeEvent = text => { batches++; take(text); }; })(takeEvent), 0",
    );
    change(&server);
    let seen = window.look(
        "[frames_ / (performance.now() - from) * 1000, longest, drawing / frames_, drawn / (performance.now() - from) * 1000]",
    );
    let seen: Vec<f64> = seen.as_array().expect("figures").iter().map(|one| one.as_f64().expect("a figure")).collect();
    println!(
        "{:.1} frames/s, the longest after {:.0} ms; script of {:.2} ms a frame; {:.0} changes/s drawn",
        seen[0], seen[1], seen[2], seen[3]
    );
    // However many events come, each frame draws once: a page that drew each event would not keep up, on any machine.
    let (frames, draws, events) = (window.look("frames_"), window.look("draws"), window.look("batches"));
    let count = |value: &Value| value.as_u64().expect("a number");
    assert!(count(&draws) <= count(&frames) + 1, "{draws} draws in {frames} frames");
    assert!(count(&draws) < count(&events), "{draws} draws for {events} events");
    let same = "get('/todos').then(answer => answer.json()).then(list => \
                loadMore(10000).then(() => next === null && list.length > 1000 && list.length === order.length && \
                list.every((todo, at) => { const mine = todoAt(order, at); return mine.id === todo.id && mine.title === todo.title && \
                mine.completed === todo.completed; })))";
    eventually("the same list", || (window.look(same) == json!(true)).then_some(()));
    assert!(window.look("frames_").as_u64().expect("a number") > 0);
}

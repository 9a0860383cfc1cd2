//! A person's own writes: add, edit, tick, delete; what is seen of them on their way, and when they are refused or overtaken.

use serde_json::json;

use crate::harness::eventually;
use crate::harness::request::{delete, get, post, put};
use crate::harness::server::Server;
use crate::harness::token::token;
use crate::window::Window;
use crate::{open_as, window_as};

fn list(server: &Server) -> Vec<serde_json::Value> {
    server.connect().call(&get("/todos")).expect(200).json().as_array().expect("a list").clone()
}

fn create(server: &Server, user: &str, title: &str) -> String {
    let request = post(&token(user), json!({ "title": title, "description": "as it was" }).to_string());
    let answer = server.connect().call(&request.field("Prefer", "wait=10")).expect(202);
    answer.json()["id"].as_str().expect("an id").to_owned()
}

fn change(server: &Server, user: &str, id: &str, body: &str) {
    server.connect().call(&put(&token(user), id, body).field("Prefer", "wait=10")).expect(202);
}

fn add(window: &Window, title: &str) {
    window.type_into("#title", title);
    window.press("Enter");
}

const FIRST: &str = "#rows .row:first-child";

#[test]
fn a_todo_is_added_ticked_edited_and_deleted() {
    let (server, window) = open_as("me");
    window.wait("an empty list", "$('empty').checkVisibility()");
    add(&window, "Water the plants");
    window.wait_first("Water the plants");
    assert_eq!(window.text("$('title').value"), "", "the next one can be typed");
    window.click(&format!("{FIRST} .tick"));
    eventually("the tick on the server", || (list(&server)[0]["completed"] == true).then_some(()));
    window.wait("the tick", &format!("document.querySelector('{FIRST} .tick').checked"));
    window.click(&format!("{FIRST} .name"));
    window.type_into(".editor [name=title]", "Water all plants");
    window.type_into(".editor [name=description]", "but not the cactus\nnor the stones");
    window.click(".editor button");
    eventually("the edit on the server", || {
        let todo = &list(&server)[0];
        (todo["title"] == "Water all plants" && todo["description"] == "but not the cactus\nnor the stones")
            .then_some(())
    });
    window.wait_first("Water all plants");
    window.click(&format!("{FIRST} .delete"));
    eventually("the deletion on the server", || list(&server).is_empty().then_some(()));
    window.wait("an empty list", "$('empty').checkVisibility() && rows.size === 0");
    window.wait("nothing under way", "writes.size === 0 && $('outbox').childElementCount === 0");
}

#[test]
fn a_write_is_queued_then_durable_then_shown() {
    let (server, window) = open_as("me");
    let state = |state: &str| {
        window.wait(state, &format!("document.querySelector('#outbox .state')?.textContent === '{state}'"))
    };
    // The server is held before it can answer, and then the store before the worker can apply.
    let store = rusqlite::Connection::open(server.setup().data_dir().join("todos.sqlite")).expect("the store opens");
    store.execute_batch("BEGIN EXCLUSIVE").expect("the store is held");
    server.process.signal(libc::SIGSTOP);
    add(&window, "On its way");
    state("queued");
    server.process.signal(libc::SIGCONT);
    state("durable");
    assert!(list(&server).is_empty());
    store.execute_batch("ROLLBACK").expect("the store is let go");
    window.wait_first("On its way");
    window.wait("the outbox is empty", "$('outbox').childElementCount === 0");
}

#[test]
fn a_refused_write_says_why_and_keeps_its_text() {
    let server = crate::Setup::new().set("TITLE_MAX_CHARS", "20").set("TODOS_PER_USER_MAX", "2").start();
    let window = window_as(&server, "me");
    add(&window, "far too long for a title here");
    window.wait("the reason", "$('outbox').innerText.includes('at most 20')");
    assert!(window.text("$('outbox').innerText").contains("far too long for a title here"));
    window.wait("it is read out", "$('said').textContent.includes('refused')");
    // Its text can be changed.
    window.click("#outbox button:nth-of-type(2)");
    assert_eq!(window.text("$('title').value"), "far too long for a title here");
    add(&window, "short enough");
    window.wait_first("short enough");
    // Or it is tried again, when the reason has gone.
    create(&server, "me", "the second");
    window.wait_first("the second");
    add(&window, "the third");
    window.wait("the reason", "$('outbox').innerText.includes('TODOS_PER_USER_MAX')");
    window.click(&format!("{FIRST} .delete"));
    window.wait_first("short enough");
    window.click("#outbox button");
    window.wait_first("the third");
    window.wait("the outbox is empty", "$('outbox').childElementCount === 0");
}

#[test]
fn what_is_typed_is_never_thrown_away_by_another_press() {
    let server = crate::Setup::new().set("TITLE_MAX_CHARS", "20").start();
    let window = window_as(&server, "me");
    let id = create(&server, "me", "one");
    create(&server, "me", "two");
    window.wait("both", "rows.size === 2");
    // The name of another todo saves what is typed of this one.
    window.click("#rows .row:nth-child(2) .name");
    window.type_into(".editor [name=description]", "typed");
    window.click(&format!("{FIRST} .name"));
    window.wait("the other editor", &format!("editing && editing.id !== '{id}'"));
    eventually("it on the server", || (list(&server)[1]["description"] == "typed").then_some(()));
    // What cannot be saved stays open.
    window.type_into(".editor [name=title]", "");
    window.look(&format!("edit('{id}'), 0"));
    assert_eq!(window.look(&format!("editing.id !== '{id}' && editing.form.elements.title.value === ''")), true);
    window.press("Escape");
    // A refused create does not take the place of what is typed.
    add(&window, "far too long for a title here");
    window.wait("the reason", "$('outbox').innerText.includes('at most 20')");
    window.type_into("#title", "being typed");
    window.click("#outbox button:nth-of-type(2)");
    window.wait("what to do", "$('outbox').innerText.includes('typed above')");
    assert_eq!(window.text("$('title').value"), "being typed");
    window.type_into("#title", "");
    window.click("#outbox button:nth-of-type(2)");
    assert_eq!(window.text("$('title').value"), "far too long for a title here");
    window.wait("the outbox is empty", "$('outbox').childElementCount === 0");
    window.type_into("#title", "");
    // A refused edit waits for somebody who may write.
    window.click("#rows .row:nth-child(2) .name");
    window.type_into(".editor [name=title]", "far too long for this one");
    window.click(".editor button");
    window.wait("the reason", "$('outbox').innerText.includes('at most 20')");
    window.click("#sign-out");
    window.click("#outbox button:nth-of-type(2)");
    window.wait("who one is, is asked", "$('who-trouble').innerText.includes('Say who you are')");
    assert!(window.text("$('outbox').innerText").contains("far too long for this one"));
    window.type_into("#token", &token("me"));
    window.press("Enter");
    window.wait("who one is", "who.user === 'me'");
    // Nor is it lost where its todo is not shown.
    window.type_into("#filter", "two");
    window.wait("one row", "rows.size === 1");
    window.click("#outbox button:nth-of-type(2)");
    window.wait("why not", "$('outbox').innerText.includes('not shown below')");
    window.type_into("#filter", "");
    window.look("$('filter').dispatchEvent(new Event('input')), 0");
    window.wait("both", "rows.size === 2");
    window.click("#outbox button:nth-of-type(2)");
    assert_eq!(window.text("editing.form.elements.title.value"), "far too long for this one");
}

#[test]
fn an_edit_that_somebody_has_overtaken_says_so() {
    let (server, window) = open_as("me");
    let id = create(&server, "me", "first");
    window.wait_first("first");
    let edit_after = |change_title: &str, mine: &str| {
        window.click(&format!("{FIRST} .name"));
        window.wait("the editor", "editing");
        change(&server, "me", &id, &json!({ "title": change_title }).to_string());
        window.wait("their change", &format!("byId.get('{id}').title === '{change_title}'"));
        window.type_into(".editor [name=title]", mine);
        window.press("Enter");
        window.wait("it is told", "$('outbox').innerText.includes('Somebody else has changed it')");
        let text = window.text("$('outbox').innerText");
        assert!(text.contains(change_title) && text.contains(mine), "both texts: {text}");
        assert_eq!(list(&server)[0]["title"], change_title, "nothing was written over");
    };
    edit_after("theirs", "mine");
    window.click("#outbox button");
    eventually("mine on the server", || (list(&server)[0]["title"] == "mine").then_some(()));
    edit_after("theirs again", "mine again");
    window.click("#outbox button.quiet");
    window.wait("the outbox is empty", "$('outbox').childElementCount === 0");
    window.wait_first("theirs again");
    // The text outlives the todo.
    window.click(&format!("{FIRST} .name"));
    window.type_into(".editor [name=title]", "what I was writing");
    server.connect().call(&delete(&token("me"), &id)).expect(202);
    window.wait("it is told", "$('outbox').innerText.includes('Somebody has deleted it')");
    window.click("#outbox button");
    window.wait_first("what I was writing");
    let id = list(&server)[0]["id"].as_str().expect("an id").to_owned();
    // What has changed beside the text does not count.
    window.click(&format!("{FIRST} .name"));
    change(&server, "me", &id, r#"{"completed":true}"#);
    window.type_into(".editor [name=title]", "mine at last");
    window.press("Enter");
    eventually("mine on the server", || (list(&server)[0]["title"] == "mine at last").then_some(()));
    assert_eq!(list(&server)[0]["completed"], true);
}

#[test]
fn what_is_anothers_cannot_be_changed_and_a_bad_token_is_told() {
    let (server, window) = open_as("me");
    create(&server, "you", "yours");
    window.wait_first("yours");
    let is_disabled = |part: &str| window.look(&format!("document.querySelector('{FIRST} {part}').disabled"));
    for part in [".tick", ".edit", ".delete"] {
        assert_eq!(is_disabled(part), true, "{part}");
    }
    window.click("#sign-out");
    window.wait("nobody", "who.token === null && sessionStorage.length === 0");
    add(&window, "by nobody");
    window.wait("who one is, is asked", "$('who-trouble').innerText.includes('Say who you are')");
    assert_eq!(window.text("$('title').value"), "by nobody", "the text is kept");
    let mut stale = token("me");
    stale.replace_range(stale.len() - 4.., "AAAA");
    window.type_into("#token", &stale);
    window.press("Enter");
    window.click("#add button");
    window.wait("the reason", "$('who-trouble').innerText.includes('not taken')");
    window.wait("the text is kept", "$('outbox').innerText.includes('by nobody')");
    window.wait("the way in", "$('signed-out').checkVisibility()");
    window.type_into("#token", &token("me"));
    window.press("Enter");
    window.click("#outbox button");
    window.wait_first("by nobody");
}

#[test]
fn a_token_is_made_for_whoever_sits_at_this_machine() {
    let server = crate::Setup::new().start();
    let window = Window::open(&server.page_address());
    window.wait_live();
    window.type_into("#mint-name", "Zoë");
    window.click("#mint button");
    window.wait("who one is", "$('signed-in').innerText.includes('You are Zoë')");
    add(&window, "with a token of the page");
    window.wait_first("with a token of the page");
    assert_eq!(list(&server)[0]["user_id"], "Zoë");
    // The session keeps it over a reload; another window has its own.
    window.go(&format!("http://localhost:{}/", server.address.port()));
    window.wait("who one is", "who.user === 'Zoë'");
    // Without the address that the server prints, a token can be pasted.
    let stranger = Window::open(&format!("http://{}/", server.address));
    stranger
        .wait("what to open", "$('token-help').innerText.includes('printed address') && !$('mint').checkVisibility()");
    let off = crate::Setup::new().set("PAGE_TOKENS", "off").start();
    let other = Window::open(&format!("http://{}/", off.address));
    other.wait_live();
    other.wait("no button", "$('paste').checkVisibility() && !$('mint').checkVisibility()");
}

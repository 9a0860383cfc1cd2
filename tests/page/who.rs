//! Who one is: by the claim that the server is told to look at, and for as long as the token is taken.

use serde_json::{Value, json};

use crate::harness::request::{get, post};
use crate::harness::server::{Server, Setup};
use crate::harness::token::{now, token, token_of};
use crate::window::Window;
use crate::window_as;

/// A window that shows the page of this server, and whose person has pasted this token.
fn window_with(server: &Server, token: &str) -> Window {
    let window = Window::open(&format!("http://{}/", server.address));
    window.wait_live();
    paste(&window, token);
    window
}

fn paste(window: &Window, token: &str) {
    window.type_into("#token", token);
    window.press("Enter");
}

fn wait_for_user(window: &Window, user: &str) {
    window.wait("who one is", &format!("$('user').checkVisibility() && $('user').textContent === {user:?}"));
}

#[test]
fn who_one_is_says_the_claim_that_the_server_looks_at() {
    let claims = |own: Value| {
        let mut claims = json!({ "exp": now() + 600 });
        claims.as_object_mut().expect("an object").extend(own.as_object().expect("an object").clone());
        token_of(&claims)
    };
    for (claim, token) in [
        ("email", claims(json!({ "email": "me", "sub": "a number" }))),
        ("https://a/b", claims(json!({ "https://a/b": "me" }))),
        ("/realm/user", claims(json!({ "realm": { "user": "me" }, "sub": 7 }))),
    ] {
        let server = Setup::new().set("JWT_USER_CLAIM", claim).start();
        server.connect().call(&post(&token, r#"{"title":"mine"}"#).field("Prefer", "wait=10")).expect(202);
        let window = window_with(&server, &token);
        wait_for_user(&window, "me");
        window.wait("one's own row", "document.querySelector('#rows .mine .tick')?.disabled === false");
        window.click("#rows .tick");
        window.wait("the tick", "$('outbox').childElementCount === 0 && document.querySelector('#rows .done')");
        // A token that was kept is read in the same way.
        window.go(&format!("http://{}/", server.address));
        window.wait_live();
        wait_for_user(&window, "me");
        window.click("#sign-out");
        paste(&window, &claims(json!({ "sub": { "user": "me" } })));
        window.wait("the reason", "$('who-trouble').checkVisibility() && !who.token");
    }
}

#[test]
fn a_late_refusal_of_an_old_token_leaves_the_newer_one() {
    let server = Setup::new().start();
    let expired = token_of(&json!({ "sub": "me", "exp": now() - 600 }));
    server.connect().call(&post(&token("me"), r#"{"title":"there"}"#).field("Prefer", "wait=10")).expect(202);
    for (what, write) in [("late", "type"), ("there", "#rows .tick"), ("there", "#rows .delete")] {
        let window = window_with(&server, &expired);
        wait_for_user(&window, "me");
        // The answer is on its way for as long as it takes to paste another token.
        window.look(
            "window.held = [], (real => { window.fetch = async (...asked) => { const answer = await real(...asked); \
             if (asked[1]?.method) await new Promise(resolve => held.push(resolve)); return answer; }; })(fetch), 0",
        );
        if write == "type" {
            window.type_into("#title", what);
            window.press("Enter");
        } else {
            window.click(write);
        }
        window.wait("an answer that is held", "held.length === 1");
        window.click("#sign-out");
        paste(&window, &token("me"));
        wait_for_user(&window, "me");
        window.look("held.forEach(go => go()), 0");
        window.wait("the refusal", "$('outbox').innerText.includes('refused')");
        assert_eq!(
            window.look("who.token === sessionStorage.getItem('token') && $('user').checkVisibility()"),
            true,
            "{write}"
        );
        // And the newer one is good for another try.
        window.look("window.fetch = (real => (...asked) => real.call(window, ...asked))(window.fetch), held.push = go => go(), 0");
        window.click("#outbox button");
        window.wait("the write", "$('outbox').childElementCount === 0");
    }
    let list = server.connect().call(&get("/todos")).expect(200).json();
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
}

#[test]
fn a_token_that_is_refused_is_given_up() {
    let server = Setup::new().start();
    let window = window_with(&server, &token_of(&json!({ "sub": "me", "exp": now() - 600 })));
    wait_for_user(&window, "me");
    window.type_into("#title", "with an old token");
    window.press("Enter");
    window.wait("the way in", "$('signed-out').checkVisibility() && $('who-trouble').innerText.includes('not taken')");
    assert_eq!(window.look("sessionStorage.getItem('token')"), Value::Null);
    drop(window);
    drop(window_as(&server, "me"));
}

//! The page at `/`, in a real browser: headless Chromium, steered over its debugging pipe, and the real server behind it.
//!
//! One browser serves all tests; each window has cookies, storage and connections of its own. Without Chromium a test fails and
//! says how to get it. Screenshots are kept in `target/page/`, to be looked at.

#[path = "../harness/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "other suites use the rest of it")]
mod harness;

mod access;
mod browser;
mod following;
mod frames;
mod list;
mod looks;
mod who;
mod window;
mod writing;

use harness::server::{Server, Setup};
use harness::token::token;
use window::Window;

/// A server of its own for a test, and a window that shows its page and writes as this user.
fn open_as(user: &str) -> (Server, Window) {
    let server = Setup::new().set("SHARDS", "2").start();
    let window = window_as(&server, user);
    (server, window)
}

/// A window on the page of this server, which writes as this user.
fn window_as(server: &Server, user: &str) -> Window {
    let window = Window::open(&format!("http://{}/", server.address));
    window.wait_live();
    window.type_into("#token", &token(user));
    window.press("Enter");
    window.wait("who one is", &format!("$('user').textContent === {user:?} && !$('signed-in').hidden"));
    window
}

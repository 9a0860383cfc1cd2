//! A window of the browser, used as a person does: by mouse, keys and eyes.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::harness::eventually;

/// A window, with storage and connections of its own. Going, it complains of what has gone wrong in its page.
pub struct Window {
    browser: Arc<Browser>,
    context: String,
    session: String,
}

impl Window {
    /// A window of a usual size that shows this page.
    pub fn open(url: &str) -> Window {
        let browser = Browser::shared();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let context = text(&browser.call(None, "Target.createBrowserContext", json!({}))["browserContextId"]);
        let asked = json!({ "url": "about:blank", "browserContextId": context });
        let target = text(&browser.call(None, "Target.createTarget", asked)["targetId"]);
        let attached = browser.call(None, "Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        let window = Window { session: text(&attached["sessionId"]), browser, context };
        for domain in ["Page", "Runtime", "Log"] {
            window.call(&format!("{domain}.enable"), json!({}));
        }
        window.call("Emulation.setFocusEmulationEnabled", json!({ "enabled": true }));
        window.resize(1280, 800);
        window.go(url);
        window
    }

    fn call(&self, method: &str, parameters: Value) -> Value {
        self.browser.call(Some(&self.session), method, parameters)
    }

    /// Shows another page, or the same one again.
    pub fn go(&self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
        eventually("the page", || (self.try_look("document.readyState") == Some(json!("complete"))).then_some(()));
    }

    /// Sets its size, in pixels of the page.
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Sets what the person prefers, such as `("prefers-color-scheme", "dark")`.
    pub fn prefer(&self, features: &[(&str, &str)]) {
        let features: Vec<Value> =
            features.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// The value of an expression in the page.
    pub fn look(&self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut answer = self.call("Runtime.evaluate", asked);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// The same while the page may be another in a moment.
    fn try_look(&self, expression: &str) -> Option<Value> {
        let asked = json!({ "expression": expression, "returnByValue": true });
        let mut answer = self.browser.try_call(Some(&self.session), "Runtime.evaluate", asked).ok()?;
        Some(answer["result"]["value"].take())
    }

    /// The value of an expression, as text.
    pub fn text(&self, expression: &str) -> String {
        self.look(expression).as_str().unwrap_or_else(|| panic!("{expression} is no text")).to_owned()
    }

    /// Waits until an expression is true.
    pub fn wait(&self, what: &str, expression: &str) {
        let asked = format!("!!({expression})");
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(what, || (self.try_look(&asked) == Some(json!(true))).then_some(()));
        }));
        if let Err(panic) = seen {
            eprintln!("--- the page shows:\n{}\n---", self.text("document.body.innerText"));
            std::panic::resume_unwind(panic);
        }
    }

    /// Waits until the feed is there, and with it the list.
    pub fn wait_live(&self) {
        self.wait("the feed", "$('live').dataset.state === 'live' && isLoaded");
    }

    /// Waits until the first row that is shown is this todo, as the server has it.
    pub fn wait_first(&self, title: &str) {
        self.wait(title, &format!("titles()[0] === {title:?}").replace("titles()", TITLES));
    }

    /// The titles that are shown, from above.
    pub fn titles(&self) -> Vec<String> {
        let titles = self.look(TITLES);
        titles.as_array().expect("a list").iter().map(|title| title.as_str().expect("a text").to_owned()).collect()
    }

    /// Clicks what this selector finds, in its middle.
    pub fn click(&self, selector: &str) {
        self.wait(selector, &format!("document.querySelector({selector:?})?.checkVisibility()"));
        let place = self.look(&format!(
            "(element => {{ element.scrollIntoView({{ block: 'nearest' }}); const box = element.getBoundingClientRect(); \
             return [box.x + box.width / 2, box.y + box.height / 2]; }})(document.querySelector({selector:?}))"
        ));
        for (kind, buttons) in [("mouseMoved", 0), ("mousePressed", 1), ("mouseReleased", 0)] {
            let event = json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "buttons": buttons, "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Clicks a field and replaces its text.
    pub fn type_into(&self, selector: &str, text: &str) {
        self.click(selector);
        self.look(&format!("document.querySelector({selector:?}).select()"));
        self.type_text(text);
    }

    /// Types into what has the focus.
    pub fn type_text(&self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Presses a key and lets it go.
    pub fn press(&self, key: &str) {
        let (name, shift) = key.strip_prefix("Shift+").map_or((key, 0), |name| (name, 8));
        let (code, number, text) = match name {
            "Enter" => ("Enter", 13, "\r"),
            "Space" => ("Space", 32, " "),
            "Tab" => ("Tab", 9, ""),
            "Escape" => ("Escape", 27, ""),
            "Delete" => ("Delete", 46, ""),
            "End" => ("End", 35, ""),
            "Home" => ("Home", 36, ""),
            "ArrowUp" => ("ArrowUp", 38, ""),
            "ArrowDown" => ("ArrowDown", 40, ""),
            _ => panic!("{key} is not known"),
        };
        let key = if name == "Space" { " " } else { name };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let event = json!({
                "type": kind, "key": key, "code": code, "windowsVirtualKeyCode": number, "text": text, "modifiers": shift,
            });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Turns the wheel over the list by so many pixels.
    pub fn wheel(&self, pixels: i64) {
        let place =
            self.look("(box => [box.x + box.width / 2, box.y + box.height / 2])($('list').getBoundingClientRect())");
        let event = json!({ "type": "mouseWheel", "x": place[0], "y": place[1], "deltaX": 0, "deltaY": pixels });
        self.call("Input.dispatchMouseEvent", event);
    }

    /// Keeps what it shows as `target/page/NAME.png`.
    pub fn keep_picture(&self, name: &str) {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/page");
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let bytes = STANDARD.decode(picture["data"].as_str().expect("a picture")).expect("base64");
        std::fs::write(folder.join(format!("{name}.png")), bytes).expect("a picture can be kept");
    }
}

/// The titles of the rows that are shown, as an expression.
const TITLES: &str = "[...document.querySelectorAll('#rows .row')].map(row => row.querySelector('.name').textContent)";

impl Drop for Window {
    fn drop(&mut self) {
        let complaints = self.browser.complaints(&self.session);
        let _ =
            self.browser.try_call(None, "Target.disposeBrowserContext", json!({ "browserContextId": self.context }));
        if !std::thread::panicking() {
            assert!(complaints.is_empty(), "the page has failed: {complaints:?}");
        }
    }
}

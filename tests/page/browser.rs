//! A headless Chromium, steered by the DevTools protocol over its pipe: messages of JSON, each with a NUL behind it.
//!
//! The protocol's few commands that are needed here fit into this file; a client of all of it would be the largest dependency of
//! the tests, and the driver of the distribution is another process between.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::process::Process;
use crate::harness::{PATIENCE, eventually};

/// Its name in Debian; Ubuntu and others have another.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// A running browser. The last window that goes ends it.
pub struct Browser {
    process: Mutex<Process>,
    commands: Mutex<(File, u64)>,
    heard: Arc<(Mutex<Heard>, Condvar)>,
    _folder: TempDir,
}

#[derive(Default)]
struct Heard {
    replies: HashMap<u64, Value>,
    /// What went wrong in a page, by session.
    complaints: HashMap<String, Vec<String>>,
}

impl Browser {
    /// The browser that all tests share.
    pub fn shared() -> Arc<Browser> {
        static SHARED: Mutex<Weak<Browser>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let browser = Arc::new(Browser::start());
            *shared = Arc::downgrade(&browser);
            browser
        })
    }

    fn start() -> Browser {
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder can be made");
        let pipes = ["commands", "events"].map(|name| folder.path().join(name));
        let made = Command::new("mkfifo").args(&pipes).status().expect("mkfifo runs");
        assert!(made.success(), "pipes can be made");
        // Opened for both directions, a pipe waits for nobody.
        let open = |path: &Path| File::options().read(true).write(true).open(path).expect("a pipe opens");
        let (commands, mut events) = (open(&pipes[0]), open(&pipes[1]));
        let mut command = Command::new("bash");
        command.args(["-c", r#"exec "$@" 3<commands 4>events"#, "bash"]).arg(program());
        command.current_dir(folder.path()).env("HOME", folder.path()).env("TZ", "UTC").env("LANG", "en_US.UTF-8");
        command.args([
            "--headless",
            "--remote-debugging-pipe",
            "--user-data-dir=profile",
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-extensions",
            "--disable-sync",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-breakpad",
            "--disable-background-timer-throttling",
            "--disable-backgrounding-occluded-windows",
            "--disable-renderer-backgrounding",
            "--force-color-profile=srgb",
            "--lang=en-US",
        ]);
        // SAFETY: a system call that cannot fail.
        if unsafe { libc::geteuid() } == 0 {
            // Its sandbox refuses root. What it opens here are pages of our own.
            command.arg("--no-sandbox");
        }
        let process = Process::start(command);
        let heard: Arc<(Mutex<Heard>, Condvar)> = Arc::default();
        let listener = Arc::clone(&heard);
        std::thread::spawn(move || {
            let (mut pending, mut piece) = (Vec::new(), vec![0; 1 << 16]);
            while let Ok(length @ 1..) = events.read(&mut piece) {
                pending.extend_from_slice(&piece[..length]);
                while let Some(end) = pending.iter().position(|&byte| byte == 0) {
                    let message: Vec<u8> = pending.drain(..=end).collect();
                    listener.0.lock().unwrap_or_else(PoisonError::into_inner).hear(&message[..end]);
                    listener.1.notify_all();
                }
            }
        });
        let browser =
            Browser { process: Mutex::new(process), commands: Mutex::new((commands, 0)), heard, _folder: folder };
        browser.call(None, "Browser.getVersion", json!({}));
        browser
    }

    /// Has the browser, or the page of a session, carry out a command, and returns what comes of it.
    ///
    /// # Panics
    /// When it refuses, or does not answer.
    pub fn call(&self, session: Option<&str>, method: &str, parameters: Value) -> Value {
        let reply = self.try_call(session, method, parameters);
        reply.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// The same for a command that may be refused.
    pub fn try_call(&self, session: Option<&str>, method: &str, parameters: Value) -> Result<Value, Value> {
        let number = {
            let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
            commands.1 += 1;
            let number = commands.1;
            let mut message = json!({ "id": number, "method": method, "params": parameters });
            if let Some(session) = session {
                message["sessionId"] = session.into();
            }
            let mut text = message.to_string().into_bytes();
            text.push(0);
            commands.0.write_all(&text).expect("the browser takes a command");
            number
        };
        let heard = self.heard.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_missing = |heard: &mut Heard| !heard.replies.contains_key(&number);
        let waited = self.heard.1.wait_timeout_while(heard, PATIENCE, is_missing);
        let (mut heard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let Some(mut reply) = heard.replies.remove(&number) else {
            drop(heard);
            let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
            panic!("Chromium did not answer {method}; it says:\n{}", process.stderr.text());
        };
        match reply.get_mut("error") {
            Some(error) => Err(error.take()),
            None => Ok(reply["result"].take()),
        }
    }

    /// What has gone wrong in the page of a session: errors of its scripts, and what its policy has refused.
    pub fn complaints(&self, session: &str) -> Vec<String> {
        let heard = self.heard.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.complaints.get(session).cloned().unwrap_or_default()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let _ = self.try_call(None, "Browser.close", json!({}));
        let process = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
        eventually("the end of the browser", || process.status());
    }
}

impl Heard {
    fn hear(&mut self, message: &[u8]) {
        let message: Value = serde_json::from_slice(message).expect("the browser speaks JSON");
        if let Some(number) = message["id"].as_u64() {
            self.replies.insert(number, message);
            return;
        }
        let parameters = &message["params"];
        let complaint = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => parameters["exceptionDetails"].to_string(),
            // That a server is away is told as well, and is what some tests are about.
            Some("Log.entryAdded") if parameters["entry"]["source"] != "network" => parameters["entry"].to_string(),
            _ => return,
        };
        let session = message["sessionId"].as_str().unwrap_or_default().to_owned();
        self.complaints.entry(session).or_default().push(complaint);
    }
}

/// Where Chromium is.
fn program() -> std::path::PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = NAMES.iter().flat_map(|name| std::env::split_paths(&path).map(move |folder| folder.join(name)));
    places.find(|place| place.is_file()).unwrap_or_else(|| {
        panic!("the tests of the page need Chromium, and there is none in PATH: install it with `deploy/setup.sh test`")
    })
}

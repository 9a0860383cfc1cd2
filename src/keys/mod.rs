//! The keys that tokens are checked with: where they come from, and how a change of them reaches every shard.
//!
//! ```text
//! .env, jwt-secret, JWT_PUBLIC_KEY, JWT_JWKS ─▶ keys ─▶ every shard's inbox ─▶ Verifier
//!                              SIGHUP ────────────┘ ▲                            │ an unknown kid
//!                              https address ─▶ key-fetch ◀──────────────────────┘
//! ```
//!
//! Two threads, because a shard waits for no file and nobody waits for an issuer. A set is handed over as a whole, and a shard
//! forgets the tokens of keys that are not in it. What cannot be read or fetched changes nothing: the keys from before go on, and
//! `/ready` says so.

mod address;
mod files;
mod schedule;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, never, select, unbounded};

use self::address::{Fetched, KeyAddress};
pub use self::files::{KeyFiles, KeysError};
use crate::auth::{Fetch, Key, KeySet, TooManyKeys};
use crate::config::{Auth, ConnectionUrl, KeySetPlace};
use crate::counted::Counted;
use crate::data_dir::{Fault, Footing};
use crate::limits::KEY_FILES_LOOK_MS;
use crate::observe::status::{Component, Status};
use crate::wires::inbox::{InboxSender, Message};

const THREAD: &str = "keys";

/// The keys at the start, and what keeps them up to date once it is started.
pub struct Keys {
    files: KeyFiles,
    /// Those that were read last; not all of them are in `set` when they are too many together.
    of_files: Vec<Arc<Key>>,
    of_address: Vec<Arc<Key>>,
    fetch: Fetch,
    /// Those that tokens are checked with.
    set: Arc<KeySet>,
    address: Option<KeyAddress>,
    status: Arc<Status>,
    /// The data folder whose key may be missing one day.
    footing: Option<Arc<Footing>>,
    asks: Option<Sender<()>>,
    wishes: Receiver<()>,
    file_trouble: Option<String>,
    fetch_trouble: Option<String>,
    join_trouble: Option<String>,
}

/// The running thread.
pub struct KeysThread {
    reload: Sender<()>,
    thread: JoinHandle<()>,
}

impl KeysThread {
    /// Has all files read again.
    pub fn reload(&self) {
        // One wish is as good as several.
        let _ = self.reload.try_send(());
    }

    /// The thread, to wait for.
    pub fn into_thread(self) -> JoinHandle<()> {
        self.thread
    }
}

impl Keys {
    /// Reads what is in files; what is at an address comes later.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn read(
        settings: &Auth,
        mut files: KeyFiles,
        status: Arc<Status>,
        footing: Option<Arc<Footing>>,
    ) -> Result<Keys, KeysError> {
        let of_files: Vec<_> = files.read()?.into_iter().map(Arc::new).collect();
        let address = match &settings.key_set {
            Some(KeySetPlace::Address(url)) => Some(KeyAddress {
                url: url.clone(),
                refresh: settings.key_set_refresh,
                authorities: settings.key_set_authorities.clone(),
            }),
            Some(KeySetPlace::File(_)) | None => None,
        };
        let fetch = if address.is_some() { Fetch::Awaited } else { Fetch::None };
        status.keys().has_address.store(address.is_some(), Ordering::Relaxed);
        let (asks, wishes) = bounded(1);
        let asks = address.is_some().then_some(asks);
        let mut keys = Keys {
            files,
            of_files,
            of_address: Vec::new(),
            fetch,
            set: Arc::default(),
            address,
            status,
            footing,
            asks,
            wishes,
            file_trouble: None,
            fetch_trouble: None,
            join_trouble: None,
        };
        keys.join()?;
        Ok(keys)
    }

    /// The keys of now.
    pub fn set(&self) -> Arc<KeySet> {
        Arc::clone(&self.set)
    }

    /// Where shards ask for newer ones; `None` without an address.
    pub fn asks(&self) -> Option<Sender<()>> {
        self.asks.clone()
    }

    /// The files.
    pub fn files(&self) -> &KeyFiles {
        &self.files
    }

    /// Keeps them up to date, and hands each new set to these shards; ends soon after `stop` is set. Each thread
    /// drops what `at_end` makes for its name then, also after a panic.
    ///
    /// # Errors
    /// The system refuses another thread.
    pub fn start<G: Send + 'static>(
        mut self,
        inboxes: Vec<InboxSender>,
        stop: Arc<AtomicBool>,
        at_end: impl Fn(&'static str) -> G,
    ) -> std::io::Result<KeysThread> {
        let (reload, reloads) = bounded(1);
        let (hand_over, fetched) = unbounded();
        let mut url = None;
        let fetched = match self.address.take() {
            Some(address) => {
                url = Some(address.url.clone());
                address.start(self.wishes.clone(), hand_over, Arc::clone(&stop), at_end(address::THREAD))?;
                fetched
            }
            None => never(),
        };
        let at_end = at_end(THREAD);
        let thread = std::thread::Builder::new().name(THREAD.into()).spawn(move || {
            let _at_end = at_end;
            self.keep(&inboxes, &reloads, fetched, url.as_ref(), &stop);
        })?;
        Ok(KeysThread { reload, thread })
    }

    fn keep(
        &mut self,
        inboxes: &[InboxSender],
        reloads: &Receiver<()>,
        mut fetched: Receiver<Fetched>,
        url: Option<&ConnectionUrl>,
        stop: &AtomicBool,
    ) {
        let look = Duration::from_millis(KEY_FILES_LOOK_MS);
        let mut is_fetched = true;
        while !stop.load(Ordering::Relaxed) {
            if !is_fetched {
                fetched = never();
            }
            select! {
                recv(reloads) -> wish => match wish {
                    Ok(()) => self.read_files(inboxes, true),
                    // The process is on its way out.
                    Err(_) => std::thread::sleep(look),
                },
                recv(fetched) -> one => match (one, url) {
                    (Ok(one), Some(url)) => self.take_fetched(inboxes, one, url),
                    // The other thread has ended, and the process is told. Until that one ends, files are looked at.
                    _ => is_fetched = false,
                },
                default(look) => if self.files.have_changed() {
                    self.read_files(inboxes, false);
                },
            }
        }
    }

    fn read_files(&mut self, inboxes: &[InboxSender], was_told_to: bool) {
        match self.files.read() {
            Ok(keys) => {
                self.of_files = keys.into_iter().map(Arc::new).collect();
                if let Some(footing) = &self.footing {
                    footing.set(Fault::Key, None);
                }
                self.file_trouble = None;
                let handed_over = self.hand_over(inboxes, "read again");
                if was_told_to && matches!(handed_over, Ok(false)) {
                    tracing::info!("keys of tokens: they were read again, and are the same");
                }
            }
            Err(KeysError::KeyFile(error)) if self.footing.is_some() => {
                let reason = format!(
                    "the key that tokens are checked with is not in its file any more: {}. No restart would find it, and all tokens \
                     would be refused. Put the file back from a backup; where all tokens may end, restart the server, which makes \
                     another key where there is none",
                    error.finding()
                );
                if let Some(footing) = &self.footing {
                    footing.set(Fault::Key, Some(&reason));
                }
            }
            Err(error) => {
                self.file_trouble = Some(format!(
                    "the keys of tokens were to be read again, which failed ({error}). Those from before go on; once this is mended, \
                     they are read again"
                ));
            }
        }
        self.tell_trouble();
    }

    fn take_fetched(&mut self, inboxes: &[InboxSender], fetched: Fetched, url: &ConnectionUrl) {
        let status = Arc::clone(&self.status);
        let figures = status.keys();
        match fetched.outcome {
            Ok(set) => {
                for reason in &set.left_out {
                    tracing::debug!("keys of {url}: left out {reason}");
                }
                self.of_address = set.keys.into_iter().map(Arc::new).collect();
                self.fetch = Fetch::At(fetched.at);
                self.fetch_trouble = None;
                match self.hand_over(inboxes, "fetched") {
                    // Behind the hand-over: who reads `/ready` may send a token next.
                    Ok(_) => figures.confirm(self.status.now_ms()),
                    Err(_) => {
                        figures.failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            Err(reason) => {
                figures.failed.fetch_add(1, Ordering::Relaxed);
                let meanwhile = match figures.age_ms(self.status.now_ms()) {
                    Some(_) => {
                        "Those that were fetched last go on, and a token that names another is answered with 503"
                    }
                    None => "Writes with tokens of this issuer are answered with 503 until they come",
                };
                self.fetch_trouble = Some(format!(
                    "the keys of tokens could not be fetched from {url}: {reason}. {meanwhile}; they are asked for again"
                ));
            }
        }
        self.tell_trouble();
    }

    fn tell_trouble(&self) {
        let reasons: Vec<&str> = [&self.file_trouble, &self.fetch_trouble, &self.join_trouble]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        match reasons.is_empty() {
            true => self.status.well(Component::Keys),
            false => self.status.trouble(Component::Keys, &reasons.join("; ")),
        }
    }

    /// Hands the keys to every shard; says whether they are others than before.
    ///
    /// # Errors
    /// [`TooManyKeys`]: those from before go on.
    fn hand_over(&mut self, inboxes: &[InboxSender], how: &str) -> Result<bool, TooManyKeys> {
        let before = self.set();
        let joined = self.join();
        self.join_trouble = joined.as_ref().err().map(|error| {
            format!("{}. Those from before go on; once they are fewer, all are taken", KeysError::from(*error))
        });
        joined?;
        for inbox in inboxes {
            inbox.send(Message::Keys(self.set()));
        }
        let new = self.set.iter().filter(|key| !before.contains(key)).count();
        let gone = before.iter().filter(|key| !self.set.contains(key)).count();
        if new + gone == 0 {
            return Ok(false);
        }
        tracing::info!(
            "keys of tokens: they were {how}, and tokens are checked with {} from now on: {new} new, {gone} gone. Tokens of a key \
             that is gone are refused",
            Counted(self.set.len(), "keys")
        );
        Ok(true)
    }

    /// Makes one set of all keys that were read last, unless they are too many.
    fn join(&mut self) -> Result<(), TooManyKeys> {
        let all = self.of_files.iter().chain(&self.of_address).cloned();
        self.set = Arc::new(KeySet::new(all)?.with_fetch(self.fetch).with_secret(self.files.secret().cloned()));
        self.status.keys().count.store(self.set.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

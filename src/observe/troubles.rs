//! Which parts of a process are in trouble, and why. Whoever finds a trouble notes it here once; the log, `/ready` and the
//! metrics show it from here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Least time between two log lines about a trouble whose reason changes: two servers that are away can take turns as the
/// reason several times a second.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A part that can be in trouble by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The list and its way to this process.
    Feed,
    /// The command log, as seen by writes.
    CommandLog,
    /// The properties of Kafka's topic: what they promise, not whether a broker answers.
    Topic,
    /// The store, as far as its schema, its rights or its settings are concerned.
    Store,
    /// The folder of the embedded deployment.
    DataFolder,
    /// Commands that were put aside because they can never be applied.
    DeadLetters,
    /// Whether workers apply what was written, and soon.
    Workers,
    /// A limit of the list, the log or the memory that has been reached.
    Limits,
    /// The memory of the buffers of connections, when it is short.
    ConnectionMemory,
    /// Whether PostgreSQL answers, whatever it says.
    StoreLink,
    /// Whether Redis does.
    FeedLink,
    /// Whether Kafka's brokers do.
    LogLink,
    /// The keys that tokens are checked with.
    Keys,
}

impl Component {
    /// All of them.
    pub const ALL: [Component; 13] = [
        Component::Feed,
        Component::CommandLog,
        Component::Topic,
        Component::Store,
        Component::DataFolder,
        Component::DeadLetters,
        Component::Workers,
        Component::Limits,
        Component::ConnectionMemory,
        Component::StoreLink,
        Component::FeedLink,
        Component::LogLink,
        Component::Keys,
    ];

    /// Its name in `/ready`, in metrics and in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Component::Feed => "feed",
            Component::CommandLog => "command_log",
            Component::Topic => "topic",
            Component::Store => "store",
            Component::DataFolder => "data_folder",
            Component::DeadLetters => "dead_letters",
            Component::Workers => "workers",
            Component::Limits => "limits",
            Component::ConnectionMemory => "connection_memory",
            Component::StoreLink => "store_link",
            Component::FeedLink => "feed_link",
            Component::LogLink => "log_link",
            Component::Keys => "keys",
        }
    }
}

/// The troubles of a process, at most one reason for each component.
#[derive(Debug, Default)]
pub struct Troubles {
    /// Whether `reasons` has any, so that good news costs no lock.
    any: AtomicBool,
    reasons: Mutex<BTreeMap<Component, Reason>>,
}

/// Why a component is in trouble, and which reason the log has.
#[derive(Debug, Default)]
struct Reason {
    text: String,
    logged: String,
    logged_at: Option<Instant>,
}

impl Reason {
    /// Takes a reason; says whether the log should have it now.
    fn change(&mut self, text: &str, now: Instant) -> bool {
        if self.text != text {
            text.clone_into(&mut self.text);
        }
        let has_been_quiet = self.logged_at.is_none_or(|at| now.duration_since(at) >= LOG_INTERVAL);
        let is_due = has_been_quiet && self.logged != text;
        if is_due {
            text.clone_into(&mut self.logged);
            self.logged_at = Some(now);
        }
        is_due
    }
}

impl Troubles {
    /// Notes that a component is in trouble; logged when the trouble is new, and from time to time when its reason changes.
    pub fn note(&self, component: Component, reason: &str) {
        let mut reasons = self.lock();
        self.any.store(true, Ordering::Relaxed);
        if reasons.entry(component).or_default().change(reason, Instant::now()) {
            tracing::warn!(component = component.name(), reason, "in trouble");
        }
    }

    /// Notes that a component is well; logged when it was not before.
    pub fn clear(&self, component: Component) {
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        let mut reasons = self.lock();
        if reasons.remove(&component).is_some() {
            tracing::info!(component = component.name(), "well again");
        }
        self.any.store(!reasons.is_empty(), Ordering::Relaxed);
    }

    /// Notes a trouble with its reason, or that there is none.
    pub fn set(&self, component: Component, reason: Option<&str>) {
        match reason {
            Some(reason) => self.note(component, reason),
            None => self.clear(component),
        }
    }

    /// Whether a component is in trouble.
    pub fn has(&self, component: Component) -> bool {
        self.any.load(Ordering::Relaxed) && self.lock().contains_key(&component)
    }

    /// The components in trouble, with the reason of each.
    pub fn all(&self) -> Vec<(Component, String)> {
        self.lock().iter().map(|(component, reason)| (*component, reason.text.clone())).collect()
    }

    /// The same as text, `component: reason`, for whoever runs the process; [`Reasons`](super::readiness::Reasons) is what
    /// others see.
    pub fn lines(&self) -> Vec<String> {
        self.lock().iter().map(|(component, reason)| format!("{}: {}", component.name(), reason.text)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Component, Reason>> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_component_has_its_last_reason_until_it_is_well() {
        let troubles = Troubles::default();
        troubles.note(Component::Topic, "it compacts");
        troubles.note(Component::Topic, "one replica");
        troubles.set(Component::Store, Some("no rights"));
        let all = [(Component::Topic, "one replica".to_owned()), (Component::Store, "no rights".to_owned())];
        assert_eq!(troubles.all(), all);
        assert!(troubles.has(Component::Topic) && !troubles.has(Component::Feed));
        troubles.set(Component::Topic, None);
        troubles.clear(Component::Feed);
        assert_eq!(troubles.all(), [(Component::Store, "no rights".to_owned())]);
        troubles.clear(Component::Store);
        assert!(troubles.all().is_empty() && !troubles.any.load(Ordering::Relaxed));
    }

    #[test]
    fn reasons_that_take_turns_are_logged_now_and_then() {
        let mut reason = Reason::default();
        let start = Instant::now();
        assert!(reason.change("no Redis", start));
        for tenths in 1..99 {
            let turn = if tenths % 2 == 0 { "no Redis" } else { "no store" };
            assert!(!reason.change(turn, start + tenths * LOG_INTERVAL / 100), "{tenths}");
            assert_eq!(reason.text, turn);
        }
        assert!(!reason.change("no Redis", start + LOG_INTERVAL), "the log has it");
        assert!(reason.change("no store", start + LOG_INTERVAL));
    }

    #[test]
    fn all_names_every_component_once() {
        let mut names: Vec<_> = Component::ALL.iter().map(|component| component.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Component::ALL.len());
        assert!(Component::ALL.is_sorted());
    }
}

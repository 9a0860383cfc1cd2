//! What `/ready` says, to whom. Reasons come from the services and the system: they hold addresses, paths and names. Whoever
//! runs the process sees them; anyone else gets a fixed text for each part that is in trouble.

use super::troubles::{Component, Troubles};
use crate::config::ReadyDetails;

/// Who reads the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Somebody who may know where the services are and what they say.
    Operator,
    /// Anyone.
    Anyone,
}

impl Audience {
    /// Whoever asks, from this machine or not, under this setting.
    pub fn of(details: ReadyDetails, is_local: impl FnOnce() -> bool) -> Audience {
        let sees_all = match details {
            ReadyDetails::Off => false,
            ReadyDetails::Local => is_local(),
            ReadyDetails::On => true,
        };
        if sees_all { Audience::Operator } else { Audience::Anyone }
    }
}

/// What a worker in trouble is said to be, without its reason.
const WORKER_TEXT: &str = "writes are not being applied";

/// The reasons that an audience gets to see, one line for each part.
#[derive(Debug)]
pub struct Reasons {
    audience: Audience,
    lines: Vec<String>,
    has_hidden: bool,
}

impl Reasons {
    /// No reasons yet.
    pub fn new(audience: Audience) -> Reasons {
        Reasons { audience, lines: Vec::new(), has_hidden: false }
    }

    /// Adds each component that is in trouble.
    pub fn add_troubles(&mut self, troubles: &Troubles) {
        for (component, reason) in troubles.all() {
            self.add(component.name(), &reason, public_text(component));
        }
    }

    /// Adds why the worker does not get on.
    pub fn add_worker(&mut self, reason: &str) {
        self.add("worker", reason, WORKER_TEXT);
    }

    /// Adds what everybody may know.
    pub fn add_public(&mut self, line: &str) {
        self.lines.push(line.to_owned());
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Puts them into the document.
    pub fn write_into(self, document: &mut serde_json::Value) {
        document["reasons"] = self.lines.into();
        if self.has_hidden {
            document["details"] = "the log has the reasons; READY_DETAILS says who sees them here".into();
        }
    }

    fn add(&mut self, name: &str, reason: &str, public: &str) {
        let text = match self.audience {
            Audience::Operator => reason,
            Audience::Anyone => public,
        };
        self.has_hidden |= self.audience == Audience::Anyone;
        self.lines.push(format!("{name}: {text}"));
    }
}

/// What the trouble of a component means for clients.
const fn public_text(component: Component) -> &'static str {
    match component {
        Component::Feed => "the list may be older than the store",
        Component::CommandLog => "writes may be refused",
        Component::Topic => "the topic does not keep what a 202 promises",
        Component::Store => "the store is not as it has to be",
        Component::DataFolder => "the data folder is not as it has to be",
        Component::DeadLetters => "writes could not be applied and were put aside",
        Component::Workers => "writes are kept and show late",
        Component::Limits => "a limit has been reached",
        Component::ConnectionMemory => "memory for connections is short",
        Component::StoreLink => "the store does not answer",
        Component::FeedLink => "the feed does not answer",
        Component::LogLink => "the command log does not answer",
        Component::Keys => "tokens are checked with keys from before",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anyone_learns_which_part_is_in_trouble_and_nothing_of_its_reason() {
        let troubles = Troubles::default();
        for component in Component::ALL {
            troubles.note(component, "connection to 10.1.2.3:5432 failed: /etc/ssl/key.pem");
        }
        let written = |audience| {
            let mut reasons = Reasons::new(audience);
            reasons.add_troubles(&troubles);
            reasons.add_worker("it cannot open /data/todos.sqlite on 10.1.2.3");
            assert!(!reasons.is_empty());
            let mut document = serde_json::json!({ "status": "degraded" });
            reasons.write_into(&mut document);
            document
        };
        let (all, public) = (written(Audience::Operator), written(Audience::Anyone));
        assert!(all["reasons"].as_array().is_some_and(|lines| lines.len() == Component::ALL.len() + 1), "{all}");
        assert!(all.to_string().contains("todos.sqlite") && all.get("details").is_none(), "{all}");
        for line in public["reasons"].as_array().expect("lines") {
            let line = line.as_str().expect("a text");
            assert!(line.contains(": ") && !line.contains('/') && !line.contains("10.1"), "{line}");
        }
        let names = |document: &serde_json::Value| -> Vec<String> {
            let lines = document["reasons"].as_array().expect("lines").iter();
            lines.map(|line| line.as_str().expect("a text").split(':').next().expect("a name").to_owned()).collect()
        };
        assert_eq!(names(&all), names(&public));
        assert!(public["details"].as_str().is_some_and(|text| text.contains("READY_DETAILS")), "{public}");
    }

    #[test]
    fn without_trouble_nothing_is_hidden() {
        let mut reasons = Reasons::new(Audience::Anyone);
        reasons.add_troubles(&Troubles::default());
        assert!(reasons.is_empty());
        reasons.add_public("draining: the process is stopping");
        let mut document = serde_json::json!({});
        reasons.write_into(&mut document);
        assert_eq!(document, serde_json::json!({ "reasons": ["draining: the process is stopping"] }));
    }
}

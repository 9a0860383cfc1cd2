//! What the clients sent, in order, and what they were answered.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::Value;

/// What a write was meant to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// POST
    Create,
    /// PUT
    Update,
    /// DELETE
    Delete,
}

/// What became of a write, as its client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// 202: durable.
    Accepted,
    /// 503: perhaps it is in the log, perhaps not.
    Refused,
    /// The connection ended first.
    Unanswered,
}

/// One write.
#[derive(Debug, Clone)]
pub struct Write {
    /// What it was meant to do.
    pub action: Action,
    /// The title that it gives, which no other write of the test gives.
    pub title: String,
    /// What became of it.
    pub fate: Fate,
}

/// All writes of one todo, in the order in which they were sent, over one connection at a time.
#[derive(Debug, Default, Clone)]
pub struct Life {
    /// Its id, if the client got to know it.
    pub id: Option<String>,
    /// The writes.
    pub writes: Vec<Write>,
}

impl Life {
    fn last_accepted(&self) -> Option<&Write> {
        self.writes.iter().rev().find(|write| write.fate == Fate::Accepted)
    }

    /// Whether a todo with this title, or none, may be what its clients see now.
    fn may_show(&self, title: Option<&str>) -> bool {
        let leaves = |write: &Write| match write.action {
            Action::Delete => title.is_none(),
            Action::Create | Action::Update => title == Some(&write.title),
        };
        let perhaps = || self.writes.iter().any(|write| write.fate != Fate::Accepted && leaves(write));
        match self.last_accepted() {
            Some(last) => leaves(last) || perhaps(),
            None => title.is_none() || perhaps(),
        }
    }
}

/// The histories of several clients.
#[derive(Debug, Default)]
pub struct History {
    /// The todos.
    pub lives: Vec<Life>,
    /// The longest that a client waited for an answer, from sending the group of requests that it belonged to.
    pub slowest_answer: Duration,
    /// When the last 202 came.
    pub last_accepted_at: Option<Instant>,
}

impl History {
    /// Adds another client's.
    pub fn merge(&mut self, other: History) {
        self.lives.extend(other.lives);
        self.slowest_answer = self.slowest_answer.max(other.slowest_answer);
        self.last_accepted_at = self.last_accepted_at.max(other.last_accepted_at);
    }

    /// Whether a list shows the last accepted write of every todo (or one that was sent without an answer).
    pub fn is_shown_by(&self, list: &Value) -> bool {
        let todos = list.as_array().expect("a list");
        let text = |todo: &'_ Value, name: &str| todo[name].as_str().expect("a text").to_owned();
        let titles: HashMap<String, String> =
            todos.iter().map(|todo| (text(todo, "id"), text(todo, "title"))).collect();
        self.lives.iter().all(|life| {
            let Some(id) = &life.id else { return true };
            life.may_show(titles.get(id).map(String::as_str))
        })
    }
}

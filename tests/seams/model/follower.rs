//! Who follows the list of an API, by the events that come with its snapshots.

use std::collections::BTreeMap;

use million_rps::change_feed::News;
use million_rps::http::Position;
use million_rps::snapshot::Snapshot;
use serde_json::Value;

use super::history::bytes_of;

/// The list as its events tell it.
#[derive(Default)]
pub struct Follower {
    todos: BTreeMap<String, Value>,
    position: Position,
}

impl Follower {
    /// Takes in what a snapshot brings; then it has that list.
    pub fn take(&mut self, snapshot: &Snapshot, news: &News) {
        let list: Vec<Value> = serde_json::from_slice(&bytes_of(snapshot)).expect("a list");
        let list = list.into_iter().map(|todo| (todo["id"].as_str().expect("an id").to_owned(), todo)).collect();
        if news.reset.is_some() {
            self.todos = list;
            self.position = snapshot.position();
            return;
        }
        assert_eq!(news.base, self.position, "the changes go on from the list before");
        for batch in &news.batches {
            assert!(batch.position().progress >= self.position.progress, "the feed never goes back");
            assert_ne!(batch.position(), self.position, "a position is left once");
            let before = self.todos.clone();
            self.apply(batch.text());
            assert_eq!(
                before == self.todos,
                batch.position().state == self.position.state,
                "two lists have one state where they are the same, and there alone"
            );
            assert!(!batch.is_empty() || before == self.todos);
            self.position = batch.position();
        }
        assert_eq!((self.position, &self.todos), (snapshot.position(), &list), "{news:?}");
    }

    fn apply(&mut self, text: &[u8]) {
        let text = std::str::from_utf8(text).expect("UTF-8");
        for event in text.split_terminator("\n\n") {
            let line = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
            let data: Value = serde_json::from_str(line("data: ").expect("data")).expect("JSON");
            let id = data["id"].as_str().expect("an id").to_owned();
            match line("event: ") {
                Some("put") => drop(self.todos.insert(id, data)),
                Some("delete") => assert!(self.todos.remove(&id).is_some(), "{id} was not there: {text}"),
                other => panic!("{other:?}: {text}"),
            }
        }
    }
}

//! One entry of the stream of changes, as the scripts beside this file write it.

use crate::feed::ChangeSet;
use crate::store::OffsetStep;
use crate::todo::{JsonParser, Todo, TodoKey};

/// Id, then names and values in turn; names repeat.
pub(super) type RawEntry = (String, Vec<Vec<u8>>);

/// An entry, read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Of the list that it changes; empty when there was none.
    pub epoch: String,
    /// Its number; the next entry has the next one.
    pub number: u64,
    pub content: EntryContent,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum EntryContent {
    /// What a batch changed, or a part of that: `more` parts follow.
    Changes { set: ChangeSet, more: bool },
    /// The list was dropped, and why.
    Lost(String),
    /// A list is being loaded, or was put in place.
    Loaded,
}

impl Entry {
    /// Reads the fields of an entry.
    ///
    /// # Errors
    /// What is wrong with them, to be shown.
    pub fn parse(fields: Vec<Vec<u8>>, parser: &mut JsonParser) -> Result<Entry, String> {
        let (mut epoch, mut number) = (None, None);
        let mut set = ChangeSet::default();
        let mut more = false;
        let mut other = None;
        let mut fields = fields.into_iter();
        while let (Some(name), Some(mut value)) = (fields.next(), fields.next()) {
            let text = |value| String::from_utf8(value).map_err(|_| "a change in Redis is not UTF-8".to_owned());
            match &name[..] {
                b"put" => {
                    let todo = Todo::from_json(&mut value, parser);
                    set.changes.upserts.push(todo.map_err(|error| format!("a change in Redis is damaged: {error}"))?);
                }
                b"delete" => set.changes.deletes.push(parse(&text(value)?, key_from)?),
                b"step" => set.steps.push(parse(&text(value)?, step_from)?),
                b"epoch" => epoch = Some(text(value)?),
                b"number" => number = Some(parse(&text(value)?, |text| text.parse().ok())?),
                b"more" => more = true,
                b"lost" => other = Some(EntryContent::Lost(text(value)?)),
                b"loaded" | b"loading" => other = Some(EntryContent::Loaded),
                // Of a later version.
                _ => {}
            }
        }
        let (Some(epoch), Some(number)) = (epoch, number) else {
            return Err("a change in Redis has no epoch or no number".into());
        };
        Ok(Entry { epoch, number, content: other.unwrap_or(EntryContent::Changes { set, more }) })
    }
}

fn parse<T>(text: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<T, String> {
    read(text).ok_or_else(|| format!("a change in Redis is damaged: {text:?}"))
}

/// "created_at id".
fn key_from(text: &str) -> Option<TodoKey> {
    let (created_at, id) = text.split_once(' ')?;
    Some(TodoKey { created_at: created_at.parse().ok()?, id: id.parse().ok()? })
}

/// "partition from to", from being "-" when there is none.
fn step_from(text: &str) -> Option<OffsetStep> {
    let mut words = text.split(' ');
    let partition = words.next()?.parse().ok()?;
    let from = match words.next()? {
        "-" => None,
        from => Some(from.parse().ok()?),
    };
    Some(OffsetStep { partition, from, to: words.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Changes;
    use crate::todo::{Timestamp, TodoId};

    fn fields(pairs: &[(&str, &str)]) -> Vec<Vec<u8>> {
        pairs.iter().flat_map(|(name, value)| [name.as_bytes().to_vec(), value.as_bytes().to_vec()]).collect()
    }

    #[test]
    fn an_entry_is_read_as_the_script_writes_it() {
        let todo = Todo {
            id: TodoId::from_u128(7),
            title: "t".into(),
            description: String::new(),
            completed: true,
            user_id: "u".into(),
            created_at: Timestamp::from_micros(1),
            updated_at: Timestamp::from_micros(2),
        };
        let mut json = Vec::new();
        todo.write_json(&mut json);
        let json = String::from_utf8(json).expect("JSON is UTF-8");
        let gone = TodoKey { created_at: Timestamp::from_micros(3), id: TodoId::from_u128(8) };
        let raw = fields(&[
            ("epoch", "e"),
            ("number", "12"),
            ("step", "3 - 5"),
            ("step", "4 9 11"),
            ("put", &json),
            ("put", &json),
            ("delete", &format!("{} {}", gone.created_at, gone.id)),
            ("of a later version", "?"),
        ]);
        let set = ChangeSet {
            steps: vec![
                OffsetStep { partition: 3, from: None, to: 5 },
                OffsetStep { partition: 4, from: Some(9), to: 11 },
            ],
            changes: Changes { upserts: vec![todo.clone(), todo], deletes: vec![gone] },
        };
        let entry = Entry::parse(raw, &mut JsonParser::default());
        let content = EntryContent::Changes { set, more: false };
        assert_eq!(entry, Ok(Entry { epoch: "e".into(), number: 12, content }));
    }

    #[test]
    fn damaged_entries_are_named() {
        for damaged in [
            &[("epoch", "e")][..],
            &[("epoch", "e"), ("number", "many")],
            &[("epoch", "e"), ("number", "1"), ("step", "3 4")],
            &[("epoch", "e"), ("number", "1"), ("delete", "yesterday x")],
            &[("epoch", "e"), ("number", "1"), ("put", "{}")],
        ] {
            Entry::parse(fields(damaged), &mut JsonParser::default()).expect_err("damaged");
        }
    }
}

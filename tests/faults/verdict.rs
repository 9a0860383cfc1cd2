//! The account after a fault: what was promised against what is there.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use million_rps::todo::Timestamp;
use serde_json::Value;

use crate::deployment::{Api, Deployment};
use crate::history::{Action, Fate, History};
use crate::log::{Log, Logged, Row};
use crate::{HEALING_MAX, say, within};

/// Waits until every list shows the last accepted write of every todo, in the same bytes; returns how long after `since`
/// that was.
pub fn await_shown(apis: &[&Api], history: &History, since: Instant) -> Duration {
    within("the last accepted writes in every list", || {
        let lists: Vec<_> = apis.iter().map(|api| api.list()).collect();
        let is_same = lists.windows(2).all(|pair| pair[0].body == pair[1].body);
        (is_same && history.is_shown_by(&lists[0].json())).then_some(())
    });
    since.elapsed()
}

/// Checks all promises and says how it went:
/// - every accepted write stands in the log once, every other one at most once;
/// - the accepted writes of a todo stand in one partition, in the order in which they were sent;
/// - the store holds what the log means, each command applied once, in order;
/// - every API answers with the same bytes, newest first, and they are what the store holds.
///
/// # Panics
/// When a promise is broken.
pub fn judge(fault: &str, deployment: &Deployment, apis: &[&Api], history: &History, healed: Duration) -> Account {
    let log = await_agreement(deployment, apis);
    let account = compare(history, &log);
    say(&format!(
        "{fault}: {} acknowledged, {} found, {} refused, {} without an answer ({} of these two found all the same, {} \
         behind a newer one), {} todos left, healed in {:.1} s",
        account.accepted,
        account.found,
        account.refused,
        account.unanswered,
        account.found_unpromised,
        account.overtaken,
        log.meaning().len(),
        healed.as_secs_f64()
    ));
    assert!(account.accepted > 0, "a test without an accepted write shows nothing");
    assert_eq!(account.found, account.accepted);
    account
}

/// The figures of an account.
#[derive(Debug, Default)]
pub struct Account {
    /// Writes answered with 202.
    pub accepted: usize,
    /// Those of them that the log holds.
    pub found: usize,
    /// Writes answered with 503.
    pub refused: usize,
    /// Writes that got no answer.
    pub unanswered: usize,
    /// Writes of the two kinds before that are in the log.
    pub found_unpromised: usize,
    /// Those of them that stand behind an accepted write that was sent after them.
    pub overtaken: usize,
}

/// Waits until log, store and lists agree.
fn await_agreement(deployment: &Deployment, apis: &[&Api]) -> Log {
    let mut log = Log::open(deployment);
    let start = Instant::now();
    loop {
        log.catch_up();
        let expected = newest_first(log.meaning());
        let disagreement = difference("the store", &rows_of_store(deployment), &expected, &log)
            .or_else(|| lists(apis, &expected, &log));
        match disagreement {
            None => return log,
            Some(difference) => assert!(start.elapsed() < HEALING_MAX, "{difference}{}", offsets(deployment, &log)),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn lists(apis: &[&Api], expected: &[Row], log: &Log) -> Option<String> {
    let answers: Vec<_> = apis.iter().map(|api| api.list()).collect();
    for (number, answer) in answers.iter().enumerate() {
        let rows: Vec<Row> = answer.json().as_array().expect("a list").iter().map(row_of_json).collect();
        if let Some(difference) = difference(&format!("the list of API {number}"), &rows, expected, log) {
            return Some(difference);
        }
    }
    let differs = answers.windows(2).any(|pair| pair[0].body != pair[1].body);
    differs.then(|| "two APIs answer with the same todos in different bytes".into())
}

fn newest_first(rows: BTreeMap<String, Row>) -> Vec<Row> {
    let mut rows: Vec<Row> = rows.into_values().collect();
    rows.sort_by(|a, b| (b.created_at_micros, &b.id).cmp(&(a.created_at_micros, &a.id)));
    rows
}

fn rows_of_store(deployment: &Deployment) -> Vec<Row> {
    let rows = deployment.query(
        "SELECT id, title, description, completed, user_id, (extract(epoch FROM created_at) * 1000000)::bigint, \
         (extract(epoch FROM updated_at) * 1000000)::bigint FROM todos ORDER BY created_at DESC, id DESC",
    );
    let row = |columns: Vec<Option<String>>| {
        let mut columns = columns.into_iter().map(|column| column.expect("not null"));
        let mut next = || columns.next().expect("seven columns");
        Row {
            id: next(),
            title: next(),
            description: next(),
            completed: next() == "t",
            user_id: next(),
            created_at_micros: next().parse().expect("a number"),
            updated_at_micros: next().parse().expect("a number"),
        }
    };
    rows.into_iter().map(row).collect()
}

fn row_of_json(todo: &Value) -> Row {
    let text = |name: &str| todo[name].as_str().unwrap_or_else(|| panic!("{name}: {todo}")).to_owned();
    let micros = |name: &str| text(name).parse::<Timestamp>().expect("a moment").as_micros();
    Row {
        id: text("id"),
        title: text("title"),
        description: text("description"),
        completed: todo["completed"].as_bool().expect("a truth value"),
        user_id: text("user_id"),
        created_at_micros: micros("created_at"),
        updated_at_micros: micros("updated_at"),
    }
}

/// What is different, if anything is, with the history of the first todo that is.
fn difference(place: &str, rows: &[Row], expected: &[Row], log: &Log) -> Option<String> {
    if rows == expected {
        return None;
    }
    let surplus: Vec<&Row> = rows.iter().filter(|row| !expected.contains(row)).collect();
    let missing: Vec<&Row> = expected.iter().filter(|row| !rows.contains(row)).collect();
    let example = surplus.first().or(missing.first()).map(|row| row.id.clone()).unwrap_or_default();
    let commands: Vec<&Logged> = log.records.iter().filter(|record| record.text("id") == Some(&example)).collect();
    Some(format!(
        "{place} holds {} todos, the log means {}; too much: {surplus:#?}; missing: {missing:#?}; commands of {example}: \
         {commands:#?}",
        rows.len(),
        expected.len()
    ))
}

/// How far the store says that it has applied the log, and how far the log goes.
fn offsets(deployment: &Deployment, log: &Log) -> String {
    let applied =
        deployment.query("SELECT topic, partition, next FROM applied_offsets WHERE partition >= 0 ORDER BY partition");
    let mut ends = BTreeMap::new();
    for record in &log.records {
        ends.insert(record.partition, record.offset + 1);
    }
    format!("; applied: {applied:?}; the log ends at {ends:?}")
}

fn compare(history: &History, log: &Log) -> Account {
    // A delete has no title; no todo gets two.
    let mut places: HashMap<(Action, &str), Vec<(usize, &Logged)>> = HashMap::new();
    for (place, record) in log.records.iter().enumerate() {
        let (action, name) = match record.text("action") {
            Some("create") => (Action::Create, record.text("title")),
            Some("update") => (Action::Update, record.text("title")),
            Some("delete") => (Action::Delete, record.text("id")),
            other => panic!("the writers write no {other:?}"),
        };
        places.entry((action, name.expect("it has a name"))).or_default().push((place, record));
    }
    let mut account = Account::default();
    for life in &history.lives {
        let (mut last_accepted, mut partition) = (None, None);
        let mut unpromised = Vec::new();
        for write in &life.writes {
            let name = match write.action {
                Action::Delete => life.id.as_deref().expect("only todos with a known id are deleted"),
                Action::Create | Action::Update => &write.title,
            };
            let found = places.remove(&(write.action, name)).unwrap_or_default();
            assert!(found.len() <= 1, "{write:?} stands in the log {} times", found.len());
            if let Some((_, record)) = found.first() {
                let own = *partition.get_or_insert(record.partition);
                assert_eq!(record.partition, own, "the commands of {life:?} are spread over partitions");
            }
            match (write.fate, found.first()) {
                (Fate::Accepted, None) => panic!("{write:?} is lost; its todo: {life:?}"),
                (Fate::Accepted, Some(&(place, _))) => {
                    account.accepted += 1;
                    account.found += 1;
                    assert!(last_accepted < Some(place), "{write:?} stands before an earlier one: {life:?}");
                    account.overtaken += unpromised.iter().filter(|earlier| **earlier > place).count();
                    last_accepted = Some(place);
                }
                (fate, found) => {
                    if fate == Fate::Refused {
                        account.refused += 1;
                    } else {
                        account.unanswered += 1;
                    }
                    account.found_unpromised += usize::from(found.is_some());
                    unpromised.extend(found.map(|(place, _)| *place));
                }
            }
        }
    }
    assert!(places.is_empty(), "the log holds what nobody wrote: {:?}", places.keys().next());
    account
}

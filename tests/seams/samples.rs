//! Todos and commands for the suites, and the plain model that they are checked against.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use million_rps::command_log::{Acknowledgement, AcknowledgementSink, LogPosition, Refusal, Submission, Ticket};
use million_rps::store::Store;
use million_rps::todo::{Action, Command, Timestamp, Todo, TodoId};

/// 2023-11-14T22:13:20Z, in microseconds.
const START_MICROS: i64 = 1_700_000_000_000_000;

/// Todo `number`, made `number` microseconds after the first.
pub fn todo(number: u32) -> Todo {
    let created_at = Timestamp::from_micros(START_MICROS + i64::from(number));
    Todo {
        id: id(number),
        title: format!("todo {number}"),
        description: "with a description".to_owned(),
        completed: number.is_multiple_of(3),
        user_id: "owner".to_owned(),
        created_at,
        updated_at: created_at,
    }
}

pub fn id(number: u32) -> TodoId {
    TodoId::from_u128(0x0190_163d_8694_739b_0000_0000_0000_0000 + u128::from(number))
}

fn command(number: u32, micros: i64, action: Action<'static>) -> Command<'static> {
    let requested_at = Timestamp::from_micros(START_MICROS + micros);
    Command { id: id(number), user_id: "owner".into(), requested_at, action }
}

pub fn create(number: u32, title: &str) -> Command<'static> {
    let action = Action::Create { title: title.to_owned().into(), description: "".into(), completed: false };
    command(number, i64::from(number), action)
}

pub fn update(number: u32, title: &str) -> Command<'static> {
    let action = Action::Update { title: Some(title.to_owned().into()), description: None, completed: Some(true) };
    command(number, 1_000_000, action)
}

pub fn delete(number: u32) -> Command<'static> {
    command(number, 2_000_000, Action::Delete)
}

/// A history of `length` commands over few todos, the same for the same seed.
pub fn history(seed: u64, length: u32) -> Vec<Command<'static>> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move |below: u64| {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below) as u32
    };
    (0..length)
        .map(|at| {
            let number = random(u64::from(length / 4).max(1));
            match random(5) {
                0..=2 => create(number, &format!("created by {at}")),
                3 => update(number, &format!("updated by {at}")),
                _ => delete(number),
            }
        })
        .collect()
}

/// What a store has to hold after `commands`, newest first.
pub fn list_after<'c>(commands: impl IntoIterator<Item = &'c Command<'static>>) -> Vec<Todo> {
    let mut rows = BTreeMap::new();
    for command in commands {
        if let Some(todo) = command.apply(rows.remove(&command.id)) {
            rows.insert(command.id, todo);
        }
    }
    let mut list: Vec<Todo> = rows.into_values().collect();
    list.sort_by_key(|todo| std::cmp::Reverse(todo.key()));
    list
}

/// What a store holds, newest first.
pub fn list_of(store: &mut dyn Store) -> Vec<Todo> {
    let mut list = Vec::new();
    store.scan(&mut |todo| list.push(todo)).expect("a list");
    list
}

pub fn json(command: &Command<'_>) -> Vec<u8> {
    let mut json = Vec::new();
    command.write_json(&mut json);
    json
}

pub fn submission(ticket: u64, id: TodoId, payload: impl Into<Vec<u8>>) -> Submission {
    Submission { ticket: Ticket(ticket), id, payload: payload.into() }
}

pub fn submissions(commands: &[Command<'_>]) -> Vec<Submission> {
    (0..).zip(commands).map(|(ticket, command)| submission(ticket, command.id, json(command))).collect()
}

/// Keeps every acknowledgement.
#[derive(Default)]
pub struct Acknowledged(Mutex<Vec<Acknowledgement>>);

impl Acknowledged {
    pub fn new() -> Arc<Acknowledged> {
        Arc::new(Acknowledged::default())
    }

    /// Those that have come so far, by ticket.
    pub fn all(&self) -> Vec<(u64, Result<(), Refusal>)> {
        let mut all: Vec<_> =
            self.0.lock().expect("not poisoned").iter().map(|given| (given.ticket.0, given.result)).collect();
        all.sort_by_key(|(ticket, _)| *ticket);
        all
    }
}

impl Acknowledged {
    /// Where the log says that each stands, by ticket.
    pub fn positions(&self) -> Vec<Option<LogPosition>> {
        let given = self.0.lock().expect("not poisoned");
        let mut positions: Vec<_> = given.iter().map(|given| (given.ticket.0, given.position)).collect();
        positions.sort_by_key(|(ticket, _)| *ticket);
        positions.into_iter().map(|(_, position)| position).collect()
    }
}

impl AcknowledgementSink for Acknowledged {
    fn acknowledge(&self, acknowledgements: &mut Vec<Acknowledgement>) {
        self.0.lock().expect("not poisoned").append(acknowledgements);
    }
}

//! What stands for the producer and the log: it takes commands, and acknowledges or refuses them in any order, late, or never.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use reactor::{Reactor, Simulation};

use crate::command_log::{Acknowledgement, Refusal, Submission};
use crate::todo::TodoId;
use crate::wires::inbox::{InboxSender, Message};

/// Longest pause between two looks, in milliseconds.
const LOOK_MS: u64 = 40;
/// How long a command waits for its acknowledgement at most, in milliseconds: so that nobody's patience ends meanwhile.
const DELAY_MAX_MS: u64 = 300;

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    /// Its todo.
    pub id: TodoId,
    /// Its JSON.
    pub command: String,
    /// What the shard was told; `None`: nothing.
    pub result: Option<Result<(), Refusal>>,
}

/// All commands of a history.
pub type Fates = Rc<RefCell<Vec<Fate>>>;

/// Takes commands for ever.
pub async fn write(
    simulation: Simulation,
    reactor: Rc<Reactor>,
    commands: Receiver<Submission>,
    inbox: InboxSender,
    fates: Fates,
) {
    let mut waiting = Vec::new();
    loop {
        reactor.sleep(Duration::from_millis(1 + simulation.below(LOOK_MS))).await;
        let now = simulation.elapsed();
        for submission in commands.try_iter() {
            let result = match simulation.below(12) {
                0 => None,
                1 => Some(Err(Refusal::Full)),
                2 => Some(Err(Refusal::Unavailable)),
                _ => Some(Ok(())),
            };
            let command = String::from_utf8(submission.payload).expect("JSON is text");
            fates.borrow_mut().push(Fate { id: submission.id, command, result });
            if let Some(result) = result {
                let due = now + Duration::from_millis(simulation.below(DELAY_MAX_MS));
                waiting.push((due, Acknowledgement { ticket: submission.ticket, result, position: None }));
            }
        }
        let mut due = Vec::new();
        waiting.retain(|(at, acknowledgement)| {
            let is_due = *at <= now;
            if is_due {
                due.insert(simulation.below(due.len() as u64 + 1) as usize, *acknowledgement);
            }
            !is_due
        });
        if !due.is_empty() {
            inbox.send(Message::Acknowledgements(due));
        }
    }
}

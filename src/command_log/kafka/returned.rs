//! Commands that a broker returned because their batch was too large, though each of them may be small enough.
//!
//! A batch that is refused for its size was not written, so its commands may be sent again without any of them being there
//! twice. What came behind it was written meanwhile: a command whose todo has a later one in the log is not sent again, as it
//! would then stand behind that one.

use crate::command_log::Submission;
use crate::todo::TodoId;

/// Such commands, in the order in which they were refused, which is that of each todo.
#[derive(Debug, Default)]
pub(super) struct Returned(Vec<(Submission, Overtaken)>);

/// Whether a later command of the same todo is, or may be, in the log.
type Overtaken = bool;

impl Returned {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One more was refused.
    pub fn add(&mut self, submission: Submission) {
        self.0.push((submission, false));
    }

    /// A command of this todo that was sent after those here is in the log, or may be.
    pub fn overtake(&mut self, id: TodoId) {
        self.0.iter_mut().filter(|(submission, _)| submission.id == id).for_each(|(_, overtaken)| *overtaken = true);
    }

    /// Those that may be sent again, in their order, and those that may not.
    pub fn divide(self) -> (Vec<Submission>, Vec<Submission>) {
        let (overtaken, again): (Vec<_>, Vec<_>) = self.0.into_iter().partition(|(_, overtaken)| *overtaken);
        let submissions =
            |all: Vec<(Submission, Overtaken)>| all.into_iter().map(|(submission, _)| submission).collect();
        (submissions(again), submissions(overtaken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_log::Ticket;

    #[test]
    fn what_was_overtaken_is_not_sent_again() {
        let mut returned = Returned::default();
        for (ticket, id) in [(1, 7), (2, 8), (3, 7), (4, 9)] {
            returned.add(Submission { ticket: Ticket(ticket), id: TodoId::from_u128(id), payload: Vec::new() });
        }
        returned.overtake(TodoId::from_u128(7));
        returned.overtake(TodoId::from_u128(5));
        let (again, overtaken) = returned.divide();
        let tickets = |submissions: &[Submission]| submissions.iter().map(|one| one.ticket.0).collect::<Vec<_>>();
        assert_eq!((tickets(&again), tickets(&overtaken)), (vec![2, 4], vec![1, 3]));
    }
}

//! Where a worker begins in a log that its store has no place in.

use super::{Trouble, Worker};
use crate::command_log::LogHistory;
use crate::counted::Counted;
use crate::observe::troubles::Component;
use crate::store::LogPlace;

impl Worker {
    /// Lets the store follow the log from its beginning, where that is safe: nobody has applied any of it before.
    ///
    /// A program that was here before this one, as the original, notes its place with the log. To begin at the earliest
    /// record then applies again what is long done: deleted todos return, and old titles.
    pub(super) fn take_place(&mut self) -> Result<(), Trouble> {
        if self.has_place {
            return Ok(());
        }
        if let LogPlace::Unknown { .. } = self.store.log_place()? {
            let history = self.reader.history()?;
            // Asked again: another lane or worker may have begun since.
            match self.store.log_place()? {
                LogPlace::Unknown { has_todos } if history.records > 0 && (has_todos || history.read_by.is_some()) => {
                    return Err(Trouble::Waiting(Component::Store, unknown_place(&history, has_todos)));
                }
                LogPlace::Unknown { .. } => self.store.follow_log()?,
                LogPlace::Known => {}
            }
        }
        self.has_place = true;
        Ok(())
    }
}

fn unknown_place(history: &LogHistory, has_todos: bool) -> String {
    let LogHistory { log, records, read_by } = history;
    let group = read_by.as_deref().unwrap_or("NAME");
    let known = match (has_todos, read_by) {
        (true, Some(_)) => format!("the table todos has rows, and the group {group} has read it"),
        (true, None) => "the table todos has rows".to_owned(),
        (false, _) => format!("the group {group} has read it"),
    };
    format!(
        "the store does not say how far it has applied {log}, which holds {}, but {known}: to apply them again \
         could bring deleted todos and old values back. Nothing is applied until one of these has been run: `million-rps \
         migrate --from-group {group}` goes on where that consumer group stands, `million-rps migrate --from-end` takes all \
         of it for applied, `million-rps migrate --from-beginning` applies all of it",
        Counted(records, "records")
    )
}

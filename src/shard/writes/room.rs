//! How much the list may hold: todos of one user (`TODOS_PER_USER_MAX`), bytes of it all (`LIST_MAX_BYTES`).
//!
//! Judged on the snapshot, where there is such a limit, and by writes alone. The refresher counts the todos of each owner as it
//! makes a snapshot, so a write looks one number up. What is acknowledged and not in the snapshot yet does not count: that is
//! how far a limit can be passed, in all processes together.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Writes;
use crate::counted::Counted;
use crate::http::{Problem, ProblemKind};
use crate::shard::reads::Reads;
use crate::snapshot::Snapshot;
use crate::todo::TodoId;

/// Parts of the table of owners, each with a lock of its own, which the refresher and writes of that part meet.
const OWNER_PARTS: usize = 64;

/// Todos of each owner, by [`Snapshot::owner_number`].
type Owners = HashMap<u64, u32>;

/// The limits of the list, and what is counted for them.
pub struct ListRoom {
    todos_per_user_max: Option<u32>,
    list_max_bytes: Option<u64>,
    owners: Box<[Mutex<Owners>]>,
}

/// Which limit a write would pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// The user has as many todos as that.
    Todos(u32),
    /// The list has as many bytes as that.
    Bytes(u64),
}

impl ListRoom {
    /// The room of an empty list with these limits; `None` when there are none, so that nothing is counted.
    pub fn new(todos_per_user_max: Option<u32>, list_max_bytes: Option<u64>) -> Option<ListRoom> {
        if todos_per_user_max.is_none() && list_max_bytes.is_none() {
            return None;
        }
        let owners = (0..OWNER_PARTS).map(|_| Mutex::default()).collect();
        Some(ListRoom { todos_per_user_max, list_max_bytes, owners })
    }

    /// Counts a whole list.
    pub fn count_all(&self, snapshot: &Snapshot) {
        if self.todos_per_user_max.is_some() {
            self.owners.iter().for_each(|part| lock(part).clear());
            snapshot.visit_owners(&mut |owner| self.count(None, Some(owner)));
        }
    }

    /// Counts a todo that belongs to another owner than before, or to none.
    pub fn count(&self, before: Option<u64>, now: Option<u64>) {
        if self.todos_per_user_max.is_none() || before == now {
            return;
        }
        if let Some(owner) = before {
            let mut part = self.part(owner);
            let left = part.get(&owner).map_or(0, |todos| todos.saturating_sub(1));
            match left {
                0 => part.remove(&owner),
                left => part.insert(owner, left),
            };
        }
        if let Some(owner) = now {
            *self.part(owner).entry(owner).or_default() += 1;
        }
    }

    /// Why a list of this many bytes is in trouble, as text; `None` when it is not.
    pub fn trouble(&self, list_bytes: u64) -> Option<String> {
        let max = self.list_max_bytes.filter(|max| list_bytes >= *max)?;
        Some(format!(
            "the list has {list_bytes} bytes, and LIST_MAX_BYTES is {max}: creates, and updates that make it longer, are \
             refused with 507. Delete todos, or raise LIST_MAX_BYTES"
        ))
    }

    fn check_new(&self, owner: u64, new: u32, list_bytes: u64) -> Result<(), Shortage> {
        if let Some(max) = self.todos_per_user_max
            && self.part(owner).get(&owner).copied().unwrap_or(0).saturating_add(new) > max
        {
            return Err(Shortage::Todos(max));
        }
        self.check_bytes(list_bytes)
    }

    fn check_bytes(&self, list_bytes: u64) -> Result<(), Shortage> {
        match self.list_max_bytes {
            Some(max) if list_bytes >= max => Err(Shortage::Bytes(max)),
            _ => Ok(()),
        }
    }

    fn part(&self, owner: u64) -> MutexGuard<'_, Owners> {
        lock(&self.owners[owner as usize % OWNER_PARTS])
    }
}

fn lock(part: &Mutex<Owners>) -> MutexGuard<'_, Owners> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Writes {
    /// Refuses a create for which there is no room. One that repeats a create (`Idempotency-Key`) adds nothing.
    ///
    /// # Errors
    /// 429 or 507, by the limit.
    pub fn check_room_for_create(&self, reads: &Reads, id: TodoId, user: &str) -> Result<(), Problem> {
        self.check_room_for_creates(reads, &[id], user)
    }

    /// The same for several creates: for all of them, or none.
    ///
    /// # Errors
    /// As for one.
    pub fn check_room_for_creates(&self, reads: &Reads, ids: &[TodoId], user: &str) -> Result<(), Problem> {
        let (Some(room), Some(snapshot)) = (&self.room, reads.snapshot()) else { return Ok(()) };
        let new = ids.iter().filter(|id| snapshot.is_owned_by(**id, user) != Some(true)).count() as u32;
        if new == 0 {
            return Ok(());
        }
        room.check_new(snapshot.owner_number(user), new, snapshot.content_length())
            .map_err(|shortage| self.no_room(shortage))
    }

    /// Refuses an update that makes a list longer for which there is no room. `is_longer` is only asked at the limit.
    ///
    /// # Errors
    /// As for a create.
    pub fn check_room_for_update(&self, reads: &Reads, is_longer: impl FnOnce() -> bool) -> Result<(), Problem> {
        let (Some(room), Some(snapshot)) = (&self.room, reads.snapshot()) else { return Ok(()) };
        room.check_bytes(snapshot.content_length())
            .or_else(|shortage| if is_longer() { Err(self.no_room(shortage)) } else { Ok(()) })
    }

    fn no_room(&self, shortage: Shortage) -> Problem {
        match shortage {
            Shortage::Todos(max) => {
                self.metrics.writes_over_user_todos.add(1);
                let detail = format!(
                    "this user has {}, as many as TODOS_PER_USER_MAX allows; nothing was written: delete some first",
                    Counted(max, "todos")
                );
                Problem::new(ProblemKind::TooManyTodos, detail)
            }
            Shortage::Bytes(max) => {
                self.metrics.writes_over_list_bytes.add(1);
                let detail = format!(
                    "the list has as many bytes as LIST_MAX_BYTES allows ({max}); nothing was written: what makes it longer is \
                     not taken until todos are deleted"
                );
                Problem::new(ProblemKind::ListFull, detail)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::HashKeys;

    #[test]
    fn owners_are_counted_as_todos_come_and_go() {
        assert!(ListRoom::new(None, None).is_none());
        let room = ListRoom::new(Some(2), None).expect("a limit");
        let (me, other) = (7, 7 + OWNER_PARTS as u64);
        let has_room = |owner| room.check_new(owner, 1, u64::MAX).is_ok();
        room.count(None, Some(me));
        assert!(has_room(me));
        room.count(None, Some(me));
        assert_eq!(room.check_new(me, 1, 0), Err(Shortage::Todos(2)));
        assert!(has_room(other));
        room.count(Some(me), Some(other));
        assert!(has_room(me) && has_room(other));
        room.count(None, Some(other));
        assert!(!has_room(other));
        room.count(Some(other), None);
        room.count(Some(other), None);
        room.count(Some(other), None);
        assert!(has_room(other));
        assert!(room.part(other).get(&other).is_none(), "who has none takes no place");
        room.count_all(&Snapshot::empty(HashKeys::new(&[1; 32])));
        assert!(room.part(me).get(&me).is_none());
    }

    #[test]
    fn a_full_list_is_told() {
        let room = ListRoom::new(None, Some(100)).expect("a limit");
        assert_eq!((room.trouble(99), room.check_new(7, 1, 99)), (None, Ok(())));
        assert_eq!(room.check_new(7, 1, 100), Err(Shortage::Bytes(100)));
        assert!(room.trouble(100).expect("full").contains("LIST_MAX_BYTES is 100"));
    }
}

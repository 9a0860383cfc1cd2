//! The store of the histories, and the plain model that each of its commits is compared with.

use std::collections::{BTreeMap, HashMap};

use million_rps::command_log::{Offset, PartitionId};
use million_rps::store::{AppliedOffsets, Changes, Fold, Identity, OffsetStep, Store, StoreError};
use million_rps::todo::{Todo, TodoId};

use super::log::Log;
use super::stage::{Link, Seat};

/// A title that the store refuses each time.
pub const REFUSED_TITLE: &str = "refused";

#[derive(Default)]
pub struct Table {
    pub rows: BTreeMap<TodoId, Todo>,
    pub offsets: AppliedOffsets,
    /// What each todo was after each commit that touched it, oldest first, and up to which offset of its partition that
    /// commit went; it begins as nothing.
    versions: BTreeMap<TodoId, Vec<(Option<Todo>, Offset)>>,
    /// The plain model: all records up to the offsets, one by one.
    plain: BTreeMap<TodoId, Todo>,
}

impl Table {
    fn commit(
        &mut self,
        log: &Log,
        steps: &[OffsetStep],
        ids: &[TodoId],
        fold: &mut dyn FnMut(HashMap<TodoId, Todo>) -> Changes,
    ) -> Result<Changes, StoreError> {
        for step in steps {
            if self.offsets.get(&step.partition).copied() != step.from {
                return Err(StoreError::Fenced { partition: step.partition });
            }
        }
        let changes = fold(ids.iter().filter_map(|id| Some((*id, self.rows.get(id)?.clone()))).collect());
        if changes.upserts.iter().any(|todo| todo.title == REFUSED_TITLE) {
            return Err(StoreError::Refused("such a title".to_owned()));
        }
        for key in &changes.deletes {
            self.rows.remove(&key.id);
        }
        for todo in &changes.upserts {
            self.rows.insert(todo.id, todo.clone());
        }
        self.offsets.extend(steps.iter().map(|step| (step.partition, step.to)));
        for step in steps {
            self.play_plainly(log, step.partition, step.from.unwrap_or(0), step.to);
        }
        assert_eq!(self.rows, self.plain, "the store after {steps:?}, and the plain model");
        for id in ids {
            let partition = log.partition_of(*id);
            let step =
                steps.iter().find(|step| step.partition == partition).expect("the batch has the todo's partition");
            let versions = self.versions.entry(*id).or_insert_with(|| vec![(None, 0)]);
            versions.push((self.rows.get(id).cloned(), step.to));
        }
        Ok(changes)
    }

    fn play_plainly(&mut self, log: &Log, partition: PartitionId, from: Offset, to: Offset) {
        for (record, command) in &log.partitions[partition as usize].records {
            if !(from..to).contains(&record.offset) {
                continue;
            }
            let put_aside = log.dead_letters.contains(&(partition, record.offset));
            assert_eq!(put_aside, command.is_none(), "the dead letters, and offset {} of {partition}", record.offset);
            let Some(command) = command else { continue };
            if let Some(todo) = command.apply(self.plain.remove(&command.id)) {
                self.plain.insert(command.id, todo);
            }
        }
    }

    /// The first version of a todo from version `from` on that is like `shown`.
    pub fn find_version(&self, id: TodoId, from: usize, shown: Option<&Todo>) -> Option<usize> {
        match self.versions.get(&id) {
            Some(versions) => (from..versions.len()).find(|at| versions[*at].0.as_ref() == shown),
            None => shown.is_none().then_some(0),
        }
    }

    /// The version that a todo had when its partition was applied up to `next`.
    pub fn version_at(&self, id: TodoId, next: Offset) -> usize {
        self.versions.get(&id).map_or(0, |versions| versions.partition_point(|(_, to)| *to <= next).saturating_sub(1))
    }

    /// The todos that have ever been.
    pub fn known(&self) -> Vec<TodoId> {
        self.versions.keys().copied().collect()
    }

    /// The rows, newest first.
    pub fn list(&self) -> Vec<Todo> {
        let mut list: Vec<Todo> = self.rows.values().cloned().collect();
        list.sort_by_key(|todo| std::cmp::Reverse(todo.key()));
        list
    }
}

/// A process's connection to the store.
pub struct ModelStore {
    seat: Seat,
    /// A batch whose commit was not answered.
    unresolved: Option<(Vec<OffsetStep>, Changes)>,
}

impl ModelStore {
    pub fn new(seat: Seat) -> ModelStore {
        ModelStore { seat, unresolved: None }
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("by chance".to_owned())
}

impl Store for ModelStore {
    fn migrate(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn identity(&mut self) -> Result<Identity, StoreError> {
        let read = self.seat.call(Link::Wire, |world| !world.store_is_down);
        read.filter(|is_up| *is_up).map(|_| Identity::new([1; 16], [2; 32], &[])).ok_or_else(unavailable)
    }

    fn applied_offsets(&mut self) -> Result<AppliedOffsets, StoreError> {
        let read = self.seat.call(Link::Wire, |world| (!world.store_is_down).then(|| world.table.offsets.clone()));
        read.flatten().ok_or_else(unavailable)
    }

    fn apply(&mut self, steps: &[OffsetStep], ids: &[TodoId], fold: Fold<'_>) -> Result<Changes, StoreError> {
        let unresolved = self.unresolved.take().filter(|(of, _)| of == steps).map(|(_, changes)| changes);
        let mut committed = unresolved.clone();
        let answer = self.seat.call(Link::Wire, |world| {
            if world.store_is_down {
                return Err(unavailable());
            }
            if let Some(changes) = &unresolved {
                return Ok(changes.clone());
            }
            let result = world.table.commit(&world.log, steps, ids, fold);
            match &result {
                Ok(changes) => committed = Some(changes.clone()),
                Err(StoreError::Fenced { .. }) => world.count("fenced"),
                Err(_) => {}
            }
            result
        });
        let answer = answer.unwrap_or_else(|| Err(unavailable()));
        if matches!(answer, Err(StoreError::Unavailable(_))) && self.seat.stage.world().plan.remembers_commits {
            self.unresolved = committed.map(|changes| (steps.to_vec(), changes));
        }
        answer
    }

    fn scan(&mut self, each: &mut dyn FnMut(Todo)) -> Result<AppliedOffsets, StoreError> {
        let view = self.seat.call(Link::Wire, |world| {
            (!world.store_is_down).then(|| (world.table.list(), world.table.offsets.clone()))
        });
        let (list, offsets) = view.flatten().ok_or_else(unavailable)?;
        let half = list.len() / 2;
        for (at, todo) in list.into_iter().enumerate() {
            if at == half {
                self.seat.call(Link::Local, |_| ()).ok_or_else(unavailable)?;
            }
            each(todo);
        }
        Ok(offsets)
    }

    fn make_durable(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

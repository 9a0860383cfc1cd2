//! Places in the log, and which of them a list stands for.

use std::collections::BTreeMap;

use super::{Offset, PartitionId};

/// The place of one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// The partition.
    pub partition: PartitionId,
    /// The place within it.
    pub offset: Offset,
}

/// What a new list has taken in: for each partition the offset of the next command, all earlier ones being in it. A command
/// is in it also when it changed nothing: an update of another's todo, or a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Coverage {
    /// The list was read as a whole; nothing is known of partitions that are not named.
    Whole(BTreeMap<PartitionId, Offset>),
    /// The list before it, and these steps, in their order.
    Steps(Vec<(PartitionId, Offset)>),
}

//! What a client has asked to follow.

use std::cell::Cell;

use super::super::places::Place;
use crate::change_feed::Framing;
use crate::http::Position;

/// What a client has asked to follow. It keeps the client's place among all followers of the process.
pub struct Follow {
    /// Its place.
    pub place: Place,
    /// How it wants its events.
    pub wants: Wants,
    /// Where it begins.
    pub start: Start,
}

/// How a client wants its events.
pub struct Wants {
    /// How its stream is delimited.
    pub framing: Framing,
    /// Those of one user alone.
    pub filter: Option<Filter>,
    /// As many todos of the list before its changes.
    pub limit: Option<usize>,
}

/// A user whose todos are wanted.
pub struct Filter {
    /// Who.
    pub user_id: Box<str>,
    /// [`owner_number`](crate::snapshot::Snapshot::owner_number) of the user.
    pub owner: Cell<u64>,
}

/// Where a stream begins.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    /// With the batch of this number.
    At(u64),
    /// Behind a position that this process has not come to; at this tick it is given up.
    Awaited(Position, u64),
    /// Nowhere: it has ended.
    Ended,
}

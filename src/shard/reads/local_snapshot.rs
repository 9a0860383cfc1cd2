//! A shard's own handle on a snapshot.

use std::ops::Deref;
use std::sync::Arc;

use crate::snapshot::Snapshot;

/// The snapshot, wrapped once for each shard. Requests count references to the `Rc` around this, so the reference count
/// of the `Arc`, a cache line that all cores share, is written once per swap and not once per request.
pub struct LocalSnapshot(Arc<Snapshot>);

impl LocalSnapshot {
    /// Wraps a snapshot for this shard.
    pub fn new(snapshot: Arc<Snapshot>) -> LocalSnapshot {
        LocalSnapshot(snapshot)
    }

    /// The snapshot for another thread.
    pub fn share(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0)
    }
}

impl Deref for LocalSnapshot {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

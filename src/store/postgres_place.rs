//! Where the store stands in its log before anything of that log is applied: whether it has a place in it, and how it
//! gets one.

use futures_util::TryFutureExt;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::command_log::{Offset, PartitionId};
use crate::store::postgres_connection::in_time;
use crate::store::postgres_error::store_error;
use crate::store::{AppliedOffsets, LogPlace, StoreError};

/// The partition of the row that says that a topic is followed, whatever has been applied of it. No log has it.
pub(super) const FOLLOWED: PartitionId = -1;

/// The longest that a move of the offsets waits for a worker's batch.
pub(super) const PLACE_LOCK: &str = "BEGIN; LOCK TABLE applied_offsets IN EXCLUSIVE MODE";

pub(super) async fn log_place(client: &Client, topic: &str) -> Result<LogPlace, StoreError> {
    let query = "SELECT EXISTS (SELECT FROM applied_offsets WHERE topic = $1), EXISTS (SELECT FROM todos)";
    let row = client.query_typed_one(query, &[(&topic, Type::TEXT)]).await.map_err(store_error)?;
    Ok(match (row.get(0), row.get(1)) {
        (true, _) => LogPlace::Known,
        (false, false) => LogPlace::Unknown { has_todos: false },
        (false, true) => LogPlace::Unknown { has_todos: true },
    })
}

pub(super) async fn follow_log(client: &Client, topic: &str) -> Result<(), StoreError> {
    insert(client, topic, &[FOLLOWED], &[0]).await
}

/// Makes `offsets` the place in the log, and nothing else.
pub(super) async fn place(client: &Client, topic: &str, offsets: &AppliedOffsets) -> Result<(), StoreError> {
    let (mut partitions, mut nexts) = (vec![FOLLOWED], vec![0]);
    partitions.extend(offsets.keys());
    nexts.extend(offsets.values());
    in_time(client.batch_execute(PLACE_LOCK).map_err(store_error)).await?;
    in_time(async {
        let delete = "DELETE FROM applied_offsets WHERE topic = $1";
        client.execute_typed(delete, &[(&topic, Type::TEXT)]).await.map_err(store_error)?;
        insert(client, topic, &partitions, &nexts).await
    })
    .await?;
    in_time(client.batch_execute("COMMIT").map_err(store_error)).await
}

async fn insert(client: &Client, topic: &str, partitions: &[PartitionId], nexts: &[Offset]) -> Result<(), StoreError> {
    let query = "INSERT INTO applied_offsets (topic, partition, next) \
                 SELECT $1, * FROM unnest($2::integer[], $3::bigint[]) ON CONFLICT DO NOTHING";
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&topic, Type::TEXT), (&partitions, Type::INT4_ARRAY), (&nexts, Type::INT8_ARRAY)];
    client.execute_typed(query, &parameters).await.map_err(store_error)?;
    Ok(())
}

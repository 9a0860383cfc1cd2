//! Where the store stands in its log: which log that is, whether it has a place in it before anything of it is applied, and how
//! it gets one.

use std::sync::Arc;

use futures_util::TryFutureExt;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::command_log::{LeaderEpochs, LogId, Offset, PartitionId};
use crate::observe::topic::TopicFigures;
use crate::store::log_rows::{LOG_ID, LogRows, epoch_row};
use crate::store::postgres::connection::in_time;
use crate::store::postgres::error::store_error;
use crate::store::postgres::statements::BatchStatement;
use crate::store::{AppliedOffsets, LogPlace, OffsetStep, StoreError};

/// The row that says that a topic is followed, whatever has been applied of it. It is of no partition, as those of
/// [`crate::store::log_rows`].
const FOLLOWED: PartitionId = -1;

/// The longest that a move of the offsets waits for a worker's batch.
const PLACE_LOCK: &str = "BEGIN; LOCK TABLE applied_offsets IN EXCLUSIVE MODE";

/// The command log whose offsets a store keeps.
#[derive(Clone)]
pub(super) struct FollowedLog {
    pub topic: String,
    /// Its id, as the caller was told last: no batch is applied while the store follows another one.
    pub id: Option<LogId>,
    /// The epochs to be written with the batch that moves the offsets to their places.
    pub epochs: LeaderEpochs,
    /// Told of the topics that the store knows whenever the offsets are read.
    pub told: Arc<TopicFigures>,
}

impl FollowedLog {
    pub fn new(topic: &str) -> FollowedLog {
        FollowedLog { topic: topic.to_owned(), id: None, epochs: LeaderEpochs::new(), told: Arc::default() }
    }

    /// Writes the epochs that belong to these steps.
    pub async fn note_epochs(
        &self,
        client: &Client,
        statement: &BatchStatement,
        steps: &[OffsetStep],
    ) -> Result<(), tokio_postgres::Error> {
        let row = |step: &OffsetStep| {
            let (next, epoch) = self.epochs.get(&step.partition).filter(|(next, _)| *next == step.to)?;
            epoch_row(step.partition, *next, *epoch)
        };
        let (rows, epochs): (Vec<PartitionId>, Vec<i64>) = steps.iter().filter_map(row).unzip();
        if !rows.is_empty() {
            statement.execute(client, &[&self.topic, &rows, &epochs]).await?;
        }
        Ok(())
    }

    /// All that the table has of the topic.
    pub async fn read(&self, client: &Client) -> Result<LogRows, StoreError> {
        let query = "SELECT partition, next FROM applied_offsets WHERE topic = $1";
        let rows = client.query_typed(query, &[(&self.topic, Type::TEXT)]).await.map_err(store_error)?;
        let rows = LogRows::of(rows.iter().map(|row| (row.get(0), row.get(1))).collect());
        self.told.note_known_logs(rows.known.clone());
        Ok(rows)
    }

    /// Notes this id, unless one is noted; returns the one that is.
    pub async fn note(&self, client: &Client, id: LogId) -> Result<LogId, StoreError> {
        // One statement, and in one order: of two processes, one writes both halves.
        self.insert(client, &LOG_ID, &id.halves()).await?;
        Ok(self.read(client).await?.known.followed.unwrap_or(id))
    }

    /// Notes that this one was rejected.
    pub async fn reject(&self, client: &Client, id: LogId) -> Result<(), StoreError> {
        loop {
            let rows = self.read(client).await?;
            if rows.known.rejected.contains(&id) {
                return Ok(());
            }
            // Another process may take these rows first, for another topic.
            self.insert(client, &rows.free(), &id.halves()).await?;
        }
    }

    pub async fn place(&self, client: &Client) -> Result<LogPlace, StoreError> {
        let query = "SELECT EXISTS (SELECT FROM applied_offsets WHERE topic = $1 AND partition >= $2), \
                     EXISTS (SELECT FROM todos)";
        let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&self.topic, Type::TEXT), (&FOLLOWED, Type::INT4)];
        let row = client.query_typed_one(query, &parameters).await.map_err(store_error)?;
        Ok(match (row.get(0), row.get(1)) {
            (true, _) => LogPlace::Known,
            (false, false) => LogPlace::Unknown { has_todos: false },
            (false, true) => LogPlace::Unknown { has_todos: true },
        })
    }

    pub async fn follow(&self, client: &Client) -> Result<(), StoreError> {
        self.insert(client, &[FOLLOWED], &[0]).await
    }

    /// Makes `offsets` the place in the topic with this id, and nothing else.
    pub async fn set_place(
        &self,
        client: &Client,
        id: Option<LogId>,
        offsets: &AppliedOffsets,
    ) -> Result<(), StoreError> {
        let (mut partitions, mut nexts) = (vec![FOLLOWED], vec![0]);
        if let Some(id) = id {
            partitions.extend(LOG_ID);
            nexts.extend(id.halves());
        }
        partitions.extend(offsets.keys());
        nexts.extend(offsets.values());
        in_time(client.batch_execute(PLACE_LOCK).map_err(store_error)).await?;
        in_time(async {
            let delete = "DELETE FROM applied_offsets WHERE topic = $1";
            client.execute_typed(delete, &[(&self.topic, Type::TEXT)]).await.map_err(store_error)?;
            self.insert(client, &partitions, &nexts).await
        })
        .await?;
        in_time(client.batch_execute("COMMIT").map_err(store_error)).await
    }

    async fn insert(&self, client: &Client, partitions: &[PartitionId], nexts: &[Offset]) -> Result<(), StoreError> {
        let query = "INSERT INTO applied_offsets (topic, partition, next) \
                     SELECT $1, * FROM unnest($2::integer[], $3::bigint[]) ON CONFLICT DO NOTHING";
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&self.topic, Type::TEXT), (&partitions, Type::INT4_ARRAY), (&nexts, Type::INT8_ARRAY)];
        client.execute_typed(query, &parameters).await.map_err(store_error)?;
        Ok(())
    }
}

//! Reads the whole list, and the offsets that it stands at.

use std::pin::pin;

use futures_util::{StreamExt, TryFutureExt};
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::limits::POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT_MS;
use crate::store::postgres::connection::in_time;
use crate::store::postgres::error::store_error;
use crate::store::postgres::place::FollowedLog;
use crate::store::postgres::rows::{column_names, todo_from_row};
use crate::store::{AppliedOffsets, StoreError};
use crate::todo::Todo;

pub(super) async fn scan(
    client: &Client,
    log: &FollowedLog,
    each: &mut dyn FnMut(Todo),
) -> Result<AppliedOffsets, StoreError> {
    // One view for rows and offsets. Reading a long list may take longer than any batch: no limit but on silence.
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0; \
         SET LOCAL idle_in_transaction_session_timeout = {POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT_MS}"
    );
    in_time(client.batch_execute(&begin).map_err(store_error)).await?;
    let offsets = in_time(log.read(client)).await?.offsets;
    let query = format!("SELECT {} FROM todos ORDER BY created_at DESC, id DESC", column_names());
    let no_parameters: [(&(dyn ToSql + Sync), Type); 0] = [];
    // Rows are handed on as they come: the client library holds back the server, not all rows in memory.
    let rows = in_time(client.query_typed_raw(&query, no_parameters).map_err(store_error)).await?;
    let mut rows = pin!(rows);
    while let Some(row) = in_time(async { rows.next().await.transpose().map_err(store_error) }).await? {
        each(todo_from_row(&row)?);
    }
    in_time(client.batch_execute("COMMIT").map_err(store_error)).await?;
    Ok(offsets)
}

//! What became of a transaction whose answer was lost.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::store::StoreError;
use crate::store::postgres::error::store_error;

/// Pause between two questions about a transaction that the server has not finished.
const TRANSACTION_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// PostgreSQL's number of a transaction (`xid8`), by which it can be asked later what became of it.
pub(super) type TransactionNumber = i64;

/// Whether a transaction has committed; waits where the server is still busy with it.
pub(super) async fn has_committed(client: &Client, transaction: TransactionNumber) -> Result<bool, StoreError> {
    loop {
        let row = client
            .query_typed_one("SELECT txid_status($1)", &[(&transaction, Type::INT8)])
            .await
            .map_err(store_error)?;
        match row.get::<_, Option<&str>>(0) {
            Some("in progress") => tokio::time::sleep(TRANSACTION_POLL_INTERVAL).await,
            status => return Ok(status == Some("committed")),
        }
    }
}

//! Making or upgrading the schema, which may take long.

use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::limits::{POSTGRES_MIGRATE_TIMEOUT_MS, SERVICE_SILENCE_MS, SERVICE_WATCH_PATIENCE_MS};
use crate::store::StoreError;
use crate::store::postgres::connection::{Connector, Session};
use crate::store::postgres::schema::SCHEMA;

/// Makes the schema, however long that takes within its bound, as long as the server answers the bystander meanwhile: only
/// that tells a long migration from a server that is frozen.
///
/// # Errors
/// [`StoreError::Unavailable`]: it does not answer, or the time is over.
pub(super) fn make_schema(
    runtime: &Runtime,
    session: &Session,
    bystander: &mut Connector,
) -> Result<Result<(), tokio_postgres::Error>, StoreError> {
    let deadline = Duration::from_millis(POSTGRES_MIGRATE_TIMEOUT_MS);
    let pause = Duration::from_millis(SERVICE_SILENCE_MS);
    let begun_at = Instant::now();
    let mut making = pin!(session.client.batch_execute(SCHEMA));
    loop {
        if let Ok(made) = runtime.block_on(async { tokio::time::timeout(pause, making.as_mut()).await }) {
            return Ok(made);
        }
        if begun_at.elapsed() >= deadline {
            return Err(StoreError::Unavailable(format!("migrate is not done after {} s", deadline.as_secs())));
        }
        if let Err(error @ StoreError::Unavailable(_)) = bystander.ask(Duration::from_millis(SERVICE_WATCH_PATIENCE_MS))
        {
            return Err(error);
        }
    }
}

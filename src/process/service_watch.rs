//! The watch over PostgreSQL and Redis: a thread for each asks every few seconds whether it answers, over a connection of its
//! own. Who works with them may have nothing to ask for hours, and one that is frozen keeps an asker waiting for longer than
//! anybody who looks at `/ready`. Kafka is asked by the watch of its topic (`command_log/kafka/watch.rs`).

use std::sync::Arc;
use std::time::Duration;

use super::{ProcessError, services};
use crate::config::{Config, Services};
use crate::feed::FeedError;
use crate::feed::redis::RedisProbe;
use crate::limits::SERVICE_WATCH_PATIENCE_MS;
use crate::observe::silence::Silence;
use crate::observe::troubles::{Component, Troubles};
use crate::store::{Store, StoreError};

/// What to do about PostgreSQL.
const STORE_REMEDY: &str = "See whether it runs and whether this machine reaches it; what was acknowledged waits in the log, \
                            and is applied as soon as it answers";
/// What to do about Redis.
const FEED_REMEDY: &str =
    "See whether it runs and whether this machine reaches it; lists are read from PostgreSQL meanwhile";

/// Starts the threads. They end with the process: a service that does not answer would hold them up.
///
/// # Errors
/// [`ProcessError`].
pub fn start(config: &Config, services: &Services, troubles: &Arc<Troubles>) -> Result<(), ProcessError> {
    let mut store = services::store(services)?;
    store.set_patience(Some(Duration::from_millis(SERVICE_WATCH_PATIENCE_MS)));
    let silence = Silence::new(format!("PostgreSQL at {}", store.places()), STORE_REMEDY);
    watch("store-watch", Component::StoreLink, silence, troubles, move || match store.ask() {
        Err(StoreError::Unavailable(reason)) => Err(reason),
        // Whatever it says, it answers; who works with it tells of that.
        Ok(()) | Err(_) => Ok(()),
    })?;
    let mut redis = RedisProbe::new(&services::redis_options(config, services))?;
    let silence = Silence::new(format!("Redis at {}", redis.address()), FEED_REMEDY);
    watch("feed-watch", Component::FeedLink, silence, troubles, move || match redis.ask() {
        Err(FeedError::Unavailable(reason)) => Err(reason),
        Ok(()) | Err(_) => Ok(()),
    })
}

fn watch(
    thread: &str,
    component: Component,
    silence: Silence,
    troubles: &Arc<Troubles>,
    ask: impl FnMut() -> Result<(), String> + Send + 'static,
) -> Result<(), ProcessError> {
    let troubles = Arc::clone(troubles);
    let watching = move || silence.watch(component, &troubles, || false, ask);
    std::thread::Builder::new().name(thread.into()).spawn(watching)?;
    Ok(())
}

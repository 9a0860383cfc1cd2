//! `million-rps migrate`: creates or upgrades the store's schema, and says where the store goes on in the command log.

use super::MigrateArguments;
use super::log_move::{Bounds, LogMove};
use crate::command_log::embedded;
use crate::config::{Config, Deployment};
use crate::data_dir::DataDir;
use crate::process::ProcessError;
use crate::store::sqlite::SqliteStore;
use crate::store::{AppliedOffsets, Store};

/// Brings the schema of the store to the version of this program; safe to run several times and from several places.
///
/// # Errors
/// [`ProcessError`].
pub fn migrate(config: &Config, arguments: &MigrateArguments) -> Result<(), ProcessError> {
    match &config.deployment {
        Deployment::Embedded { .. } if arguments.from_group.is_some() || arguments.to_group.is_some() => {
            Err(ProcessError::Unsupported(
                "without DATABASE_URL the log is in a folder with the store, and has no consumer groups: leave out --from-group \
                 and --to-group"
                    .into(),
            ))
        }
        Deployment::Embedded { data_dir } => {
            let data_dir = DataDir::open(data_dir)?;
            let mut store = SqliteStore::open(&data_dir.store_path())?;
            store.migrate()?;
            println!("the schema of {} is up to date", data_dir.store_path().display());
            if arguments.from_beginning || arguments.from_end {
                set_place(&data_dir, &mut store, arguments)?;
            }
            Ok(())
        }
        #[cfg(feature = "services")]
        Deployment::Services(services) => {
            let mut store = crate::process::services::store(services)?;
            store.migrate()?;
            println!("the schema of {} is up to date", services.database_url);
            super::log_place::set(&mut store, &crate::process::services::kafka_options(config, services), arguments)
        }
        #[cfg(not(feature = "services"))]
        Deployment::Services(_) => Err(crate::process::services_missing()),
    }
}

/// Has the store follow the log that is in its folder, from one end of it on.
fn set_place(data_dir: &DataDir, store: &mut SqliteStore, arguments: &MigrateArguments) -> Result<(), ProcessError> {
    let _lock = data_dir.lock("")?;
    let (log, begin, end) = embedded::bounds(data_dir)?;
    let next = if arguments.from_beginning { begin } else { end };
    let applied = match store.known_logs()?.admit(log) {
        Ok(()) => store.applied_offsets()?,
        Err(_) => AppliedOffsets::new(),
    };
    store.set_log_place(log, embedded::PARTITION, next)?;
    store.make_durable()?;
    let bounds = Bounds::from([(embedded::PARTITION, (begin, end))]);
    let moved = LogMove::new(&bounds, &applied, &AppliedOffsets::from([(embedded::PARTITION, next)]));
    println!("the command log {} is applied from offset {next} on. {moved}", data_dir.log_path().display());
    Ok(())
}

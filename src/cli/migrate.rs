//! `million-rps migrate`: creates or upgrades the store's schema, and says where the store goes on in the command log.

use super::MigrateArguments;
use crate::config::{Config, Deployment};
use crate::data_dir::DataDir;
use crate::process::ProcessError;
use crate::store::Store;
use crate::store::sqlite::SqliteStore;

/// Brings the schema of the store to the version of this program; safe to run several times and from several places.
///
/// # Errors
/// [`ProcessError`].
pub fn migrate(config: &Config, arguments: &MigrateArguments) -> Result<(), ProcessError> {
    match &config.deployment {
        Deployment::Embedded { .. } if *arguments != MigrateArguments::default() => Err(ProcessError::Unsupported(
            "without DATABASE_URL the log and the store are in one folder, and the store knows its place: leave out --from-… \
             and --to-group"
                .into(),
        )),
        Deployment::Embedded { data_dir } => {
            let data_dir = DataDir::open(data_dir)?;
            SqliteStore::open(&data_dir.store_path())?.migrate()?;
            println!("the schema of {} is up to date", data_dir.store_path().display());
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

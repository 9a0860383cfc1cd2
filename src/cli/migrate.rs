//! `million-rps migrate`: creates or upgrades the store's schema.

use crate::config::{Config, Deployment};
use crate::data_dir::DataDir;
use crate::process::ProcessError;
use crate::store::Store;
use crate::store::sqlite::SqliteStore;

/// Brings the schema of the store to the version of this program; safe to run several times and from several places.
///
/// # Errors
/// [`ProcessError`].
pub fn migrate(config: &Config) -> Result<(), ProcessError> {
    match &config.deployment {
        Deployment::Embedded { data_dir } => {
            let data_dir = DataDir::open(data_dir)?;
            SqliteStore::open(&data_dir.store_path())?.migrate()?;
            println!("the schema of {} is up to date", data_dir.store_path().display());
            Ok(())
        }
        #[cfg(feature = "services")]
        Deployment::Services(services) => {
            crate::process::services::store(services)?.migrate()?;
            println!("the schema of {} is up to date", services.database_url);
            Ok(())
        }
        #[cfg(not(feature = "services"))]
        Deployment::Services(_) => Err(crate::process::services_missing()),
    }
}

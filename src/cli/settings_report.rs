//! `million-rps config`: shows settings.

use super::SettingsArguments;
use crate::config::{self, Config, ConfigErrors};
use crate::contract::{self, Bounds};

/// The text that the arguments ask for, with what looks wrong in the settings behind it. The documents need no valid
/// settings; the effective ones do.
///
/// # Errors
/// [`ConfigErrors`] of `config`.
pub fn settings_report(
    config: Result<Config, ConfigErrors>,
    arguments: &SettingsArguments,
) -> Result<String, ConfigErrors> {
    if arguments.markdown {
        Ok(config::markdown())
    } else if arguments.env_example {
        Ok(config::env_example())
    } else if arguments.routes {
        Ok(contract::markdown())
    } else if arguments.openapi {
        config.map(|config| format!("{:#}\n", contract::openapi(&Bounds::of(&config))))
    } else {
        config.map(|config| {
            let warnings = config.warnings.iter().map(|warning| format!("warning: {warning}\n"));
            config::text(&config) + &warnings.collect::<String>()
        })
    }
}

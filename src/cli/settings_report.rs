//! `million-rps config`: shows settings.

use super::SettingsArguments;
use crate::config::{self, Config, ConfigErrors};

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
    } else {
        config.map(|config| {
            let warnings = config.warnings.iter().map(|warning| format!("warning: {warning}\n"));
            config::text(&config) + &warnings.collect::<String>()
        })
    }
}

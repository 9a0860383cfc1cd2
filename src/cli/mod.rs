//! The command line: what a person types, and the tools that answer without serving.
//!
//! [`Cli`] is parsed, its flags join the environment and `.env` in [`Cli::load_config`], and `main` starts what
//! [`Command`] names.

pub mod command_line;
pub mod dead_letters;
pub mod duration;
mod log_move;
#[cfg(feature = "services")]
mod log_place;
pub mod migrate;
pub mod seed;
mod setting_flags;
pub mod settings_report;
#[cfg(test)]
mod tests;
pub mod token;

pub use command_line::{
    Cli, Command, DeadLettersAction, DeadLettersArguments, MigrateArguments, RecordPlace, SeedArguments,
    SettingsArguments, TokenArguments,
};

//! What is wrong with the settings: all of it, each with its remedy.

use std::fmt;

use super::origin::Origin;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingError {
    /// The variable, or the place where none could be read.
    pub name: String,
    /// The value as given, secrets masked; `None` when there is none to show.
    pub shown: Option<String>,
    /// Where the value came from; `None` when it was not given.
    pub origin: Option<Origin>,
    /// What is wrong.
    pub problem: String,
    /// What is allowed.
    pub allowed: String,
    /// A line that would work, or a command that makes one.
    pub example: String,
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(shown) = &self.shown {
            write!(f, "={shown}")?;
        }
        if let Some(origin) = self.origin {
            write!(f, " (from {origin})")?;
        }
        write!(f, ": {}\n    allowed: {}\n    example: {}", self.problem, self.allowed, self.example)
    }
}

/// Everything that is wrong with the settings; at least one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<SettingError>);

impl ConfigErrors {
    pub(super) fn new(errors: Vec<SettingError>) -> ConfigErrors {
        debug_assert!(!errors.is_empty());
        ConfigErrors(errors)
    }

    /// The findings, in the table's order; those about several settings last.
    pub fn all(&self) -> &[SettingError] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("a setting is wrong:")?,
            count => write!(f, "{count} settings are wrong:")?,
        }
        for error in &self.0 {
            write!(f, "\n  {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

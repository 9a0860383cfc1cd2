//! What a setting is: one row of the table.

use super::error::SettingError;
use super::kind::Kind;
use super::origin::Origin;
use super::platform::Platform;

/// A setting: an environment variable, a line of `.env`, and, unless it may hold a secret, a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The variable's name, its unit last.
    pub name: &'static str,
    /// Where it stands in help and documents.
    pub group: Group,
    /// What it takes.
    pub kind: Kind,
    /// What holds when it is not given.
    pub default: DefaultValue,
    /// Its unit, in words; empty when it has none.
    pub unit: &'static str,
    /// What it does, one or two sentences.
    pub help: &'static str,
    /// A value for examples; [`Setting::example`] falls back to the default.
    pub(super) example: &'static str,
}

/// What holds when a setting is not given.
#[derive(Debug, Clone, Copy)]
pub enum DefaultValue {
    /// This value.
    Fixed(&'static str),
    /// A value that depends on the machine, and how to say so.
    Machine {
        /// In words.
        description: &'static str,
        /// The value.
        value: fn(&Platform) -> u64,
    },
    /// Nothing, and what that means.
    Unset {
        /// In words.
        meaning: &'static str,
    },
}

impl PartialEq for DefaultValue {
    /// Compares what people see: functions have no equality.
    fn eq(&self, other: &DefaultValue) -> bool {
        self.describe() == other.describe()
    }
}

impl Eq for DefaultValue {}

impl DefaultValue {
    /// The value, if there is one.
    pub fn text(&self, platform: &Platform) -> Option<String> {
        match self {
            DefaultValue::Fixed(text) => Some((*text).to_owned()),
            DefaultValue::Machine { value, .. } => Some(value(platform).to_string()),
            DefaultValue::Unset { .. } => None,
        }
    }

    /// The default in words.
    pub fn describe(&self) -> &'static str {
        match self {
            DefaultValue::Fixed(text) => text,
            DefaultValue::Machine { description, .. } => description,
            DefaultValue::Unset { meaning } => meaning,
        }
    }
}

/// The groups of settings, in the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Listener and shards.
    Server,
    /// Deadlines and caps.
    Limits,
    /// The change feed.
    Events,
    /// Bearer tokens.
    Tokens,
    /// Where the data lives.
    Data,
    /// Kafka.
    Kafka,
    /// Logs.
    Logs,
}

impl Group {
    /// All groups, in order.
    pub const ALL: [Group; 7] =
        [Group::Server, Group::Limits, Group::Events, Group::Tokens, Group::Data, Group::Kafka, Group::Logs];

    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            Group::Server => "Server",
            Group::Limits => "Deadlines and caps",
            Group::Events => "Change feed",
            Group::Tokens => "Tokens",
            Group::Data => "Data",
            Group::Kafka => "Kafka",
            Group::Logs => "Logs",
        }
    }
}

/// In which deployment a setting has an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In each.
    All,
    /// With PostgreSQL, Kafka and Redis.
    Services,
    /// With everything in one folder.
    Embedded,
}

impl Setting {
    /// In which deployment it has an effect.
    pub fn scope(&self) -> Scope {
        match self.name {
            "DB_POOL_SIZE" | "WORKER_LANES" | "REDIS_URL" | "REDIS_POOL_SIZE" => Scope::Services,
            "DATA_DIR" | "LOG_MAX_BYTES" => Scope::Embedded,
            _ if self.group == Group::Kafka => Scope::Services,
            _ => Scope::All,
        }
    }

    /// The flag without its dashes, such as `http-port`; `None` when the value may hold a secret, since command lines
    /// can be read by every user of the machine.
    pub fn flag(&self) -> Option<String> {
        (!self.kind.holds_secret()).then(|| self.name.to_ascii_lowercase().replace('_', "-"))
    }

    /// A value that would be accepted, or how to make one.
    pub fn example(&self) -> &'static str {
        match self.default {
            DefaultValue::Fixed(text) if self.example.is_empty() => text,
            _ => self.example,
        }
    }

    /// What is allowed, with the unit.
    pub fn allowed(&self) -> String {
        match self.unit {
            "" => self.kind.allowed(),
            unit => format!("{} {unit}", self.kind.allowed()),
        }
    }

    pub(super) fn error(&self, origin: Option<Origin>, shown: Option<String>, problem: String) -> SettingError {
        SettingError {
            name: self.name.to_owned(),
            shown,
            origin,
            problem,
            allowed: self.allowed(),
            example: format!("{}={}", self.name, self.example()),
        }
    }
}

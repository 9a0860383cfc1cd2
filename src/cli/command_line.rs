//! The grammar of the command line.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand};

use super::duration::parse_duration;
use super::setting_flags::SettingFlags;
use crate::command_log::{Offset, PartitionId};
use crate::config::{Config, ConfigErrors, DotEnv, Environment, Platform, Requirements, SETTINGS, Sources, help_of};
use crate::todo::check_user_id;

/// Todos that `seed` makes when not told.
const SEED_COUNT_DEFAULT: &str = "10000";
/// Most todos that `seed` makes: what a list that lives in memory can hold on a large machine.
const SEED_COUNT_MAX: u64 = 100_000_000;
/// Longest life of a token from `token`; one that never ends cannot be taken back.
const TOKEN_TTL_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// A Todo API: reads from thread-per-core shards, every write durable through a command log.
///
/// Without a command it runs API and worker in one process. Every setting can be given as an environment variable, in a
/// file `.env`, and, unless it may hold a secret, as a flag; --help lists them. A flag wins over the environment, the
/// environment over .env.
#[derive(Debug, Parser)]
#[command(name = "million-rps", version, max_term_width = 120, subcommand_help_heading = "Commands")]
#[command(after_help = what_this_build_lacks(cfg!(feature = "services")), after_long_help = end_of_long_help())]
pub struct Cli {
    /// What to do; `run` when not given.
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: SettingFlags,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// API and worker in one process; without DATABASE_URL everything lives in DATA_DIR. The default
    Run,
    /// API only; needs DATABASE_URL. Several run side by side
    Serve,
    /// Worker only; needs DATABASE_URL. Several share the partitions of the command log
    Worker,
    /// Create or upgrade the store's schema; safe to run several times and from several places
    Migrate(MigrateArguments),
    /// Fill the list with varied todos, beside a running server or before its first start
    Seed(SeedArguments),
    /// Make a bearer token and print it
    Token(TokenArguments),
    /// Show the effective settings and where each came from; secrets are masked
    Config(SettingsArguments),
    /// Look at commands that could never be applied, and send them again
    DeadLetters(DeadLettersArguments),
}

/// What `migrate` takes: which log the store follows from now on and where it goes on in it. For a move from another program
/// or back to it, and when the log is another one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args)]
#[command(group = ArgGroup::new("place"))]
pub struct MigrateArguments {
    /// Go on where this consumer group of Kafka stands, whose program applied the topic before
    #[arg(long, value_name = "GROUP", group = "place")]
    pub from_group: Option<String>,
    /// Follow the command log that is there, and apply all that it holds, also what may have been applied before
    #[arg(long, group = "place")]
    pub from_beginning: bool,
    /// Follow the command log that is there, and take all that it holds for applied
    #[arg(long, group = "place")]
    pub from_end: bool,
    /// Let this consumer group of Kafka go on where the store stands; all workers have to be stopped
    #[arg(long, value_name = "GROUP", group = "place")]
    pub to_group: Option<String>,
}

/// What `seed` takes.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct SeedArguments {
    /// How many todos to make
    #[arg(long, value_name = "TODOS", default_value = SEED_COUNT_DEFAULT,
          value_parser = clap::value_parser!(u64).range(1..=SEED_COUNT_MAX))]
    pub count: u64,
    /// Whose todos they are
    #[arg(long, value_name = "NAME", default_value = "seed", value_parser = parse_user)]
    pub user: String,
    /// The same number makes the same titles and descriptions
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub variety: u64,
}

/// What `token` takes.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct TokenArguments {
    /// The user that the token names
    #[arg(long, value_name = "NAME", value_parser = parse_user)]
    pub sub: String,
    /// How long it is valid: a number with s, m, h or d
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_time_to_live)]
    pub ttl: Duration,
    /// Sign with the private key in this file (PEM, PKCS #8), as an issuer would; for tests
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// The algorithm, for RSA: RS256 unless given
    #[arg(long, value_name = "NAME", requires = "key", value_parser = ["RS256", "PS256", "ES256", "EdDSA"])]
    pub alg: Option<String>,
    /// What the token calls the key
    #[arg(long, value_name = "ID", requires = "key")]
    pub kid: Option<String>,
}

/// What `config` takes.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct SettingsArguments {
    /// Print the table of all settings as the README shows it, instead of their values
    #[arg(long, conflicts_with_all = ["env_example", "routes", "openapi"])]
    pub markdown: bool,
    /// Print the text of .env.example instead
    #[arg(long, conflicts_with_all = ["routes", "openapi"])]
    pub env_example: bool,
    /// Print the table of all calls as the README shows it instead
    #[arg(long, conflicts_with = "openapi")]
    pub routes: bool,
    /// Print the API as a document of OpenAPI instead, with the limits that are set, as /openapi.json has it
    #[arg(long)]
    pub openapi: bool,
}

/// What `dead-letters` takes.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct DeadLettersArguments {
    /// What to do with them.
    #[command(subcommand)]
    pub action: DeadLettersAction,
}

/// What to do with dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum DeadLettersAction {
    /// List them, oldest first, with where they stood and why they could not be applied
    List {
        /// Most lines to print
        #[arg(long, value_name = "LETTERS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
    },
    /// Send them to the command log again, as they are
    #[command(group = ArgGroup::new("which").required(true).args(["records", "all"]))]
    Replay {
        /// Which, as PARTITION:OFFSET of where they stood (the first column of `list`)
        #[arg(value_name = "PARTITION:OFFSET")]
        records: Vec<RecordPlace>,
        /// All of them
        #[arg(long)]
        all: bool,
    },
}

/// Where a record stands in the command log, written `partition:offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordPlace {
    /// Which partition.
    pub partition: PartitionId,
    /// Which record of it.
    pub offset: Offset,
}

impl FromStr for RecordPlace {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<RecordPlace, &'static str> {
        let form = "expected PARTITION:OFFSET, such as 3:1042";
        let (partition, offset) = text.split_once(':').ok_or(form)?;
        let (partition, offset) = (partition.parse().map_err(|_| form)?, offset.parse().map_err(|_| form)?);
        if partition < 0 || offset < 0 { Err(form) } else { Ok(RecordPlace { partition, offset }) }
    }
}

/// What a build without the services cannot do, in words; empty where it can do all.
pub(super) fn what_this_build_lacks(has_services: bool) -> &'static str {
    if has_services {
        return "";
    }
    "This program was built without PostgreSQL, Kafka and Redis: serve, worker and DATABASE_URL do not work in it. \
     `make build` makes one that has them."
}

/// What `--help` shows behind the flags: the settings that have none.
fn end_of_long_help() -> String {
    let mut text =
        String::from("Settings that may hold a secret have no flag; they come from the environment or from .env:\n");
    for setting in SETTINGS.iter().filter(|setting| setting.flag().is_none()) {
        text += &format!("\n  {}\n          {}\n", setting.name, help_of(setting));
    }
    match what_this_build_lacks(cfg!(feature = "services")) {
        "" => text,
        lacks => format!("{text}\n{lacks}"),
    }
}

impl Cli {
    /// What to do.
    pub fn chosen_command(&self) -> Command {
        self.command.clone().unwrap_or(Command::Run)
    }

    /// The settings, from the flags of this command line, the environment of the process, and `.env` in the working
    /// directory.
    ///
    /// # Errors
    /// [`ConfigErrors`] holds everything that is wrong.
    pub fn load_config(&self) -> Result<Config, ConfigErrors> {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
        let environment: Environment<'_> = &|name| std::env::var_os(name);
        self.load_config_from((environment, names), DotEnv::read(Path::new(".env")), &Platform::detect())
    }

    /// The settings, from the flags of this command line and from what is given: the environment with the names of its
    /// variables, the file `.env`, the machine.
    ///
    /// # Errors
    /// [`ConfigErrors`] holds everything that is wrong.
    pub fn load_config_from(
        &self,
        (environment, environment_names): (Environment<'_>, Vec<String>),
        dot_env: DotEnv,
        platform: &Platform,
    ) -> Result<Config, ConfigErrors> {
        let sources = Sources { flags: self.settings.0.clone(), environment, environment_names, dot_env };
        Config::load(&sources, platform, self.chosen_command().requirements())
    }
}

impl Command {
    /// What the command cannot do without.
    pub fn requirements(&self) -> Requirements {
        let (command, services, jwt_secret) = match self {
            Command::Run => ("run", false, true),
            Command::Serve => ("serve", true, true),
            // Workers neither check nor make tokens: they need not know the key.
            Command::Worker => ("worker", true, false),
            Command::Migrate(_) => ("migrate", false, false),
            // It goes to the topic itself, or takes the key of the folder.
            Command::Seed(_) => ("seed", false, false),
            Command::Token(_) => ("token", false, true),
            // Says of the settings what `run` would say.
            Command::Config(_) => ("config", false, true),
            Command::DeadLetters(_) => ("dead-letters", false, false),
        };
        Requirements { command, services, jwt_secret, no_todos: matches!(self, Command::Token(_)) }
    }
}

fn parse_user(text: &str) -> Result<String, String> {
    match check_user_id(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err(error.reason.into_owned()),
    }
}

fn parse_time_to_live(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("a token has to be valid for at least 1s".to_owned()),
        time if time > TOKEN_TTL_MAX => Err("a token is valid for at most 3660d".to_owned()),
        time => Ok(time),
    }
}

//! A connection to PostgreSQL: its URL, TLS, time limits, and what an error of the server means for the store.
//!
//! The client library is asynchronous; each store drives it on a small runtime of its own, inside the thread that calls
//! it. That gives every step a deadline on this side too: a frozen server keeps its TCP connections alive, so that
//! neither the server's own timeouts nor keepalives would end a call.

use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::limits::{
    POSTGRES_CONNECT_TIMEOUT_MS, POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT_MS, POSTGRES_LOCK_TIMEOUT_MS,
    POSTGRES_RECONNECT_BACKOFF_MAX_MS, POSTGRES_RECONNECT_BACKOFF_MIN_MS, POSTGRES_REPLY_TIMEOUT_MS,
    POSTGRES_STATEMENT_TIMEOUT_MS,
};
use crate::store::StoreError;
use crate::store::postgres::error::{store_error, with_source};
use crate::store::postgres::statements::Statements;
use crate::store::postgres::tls::TlsMode;
use crate::store::postgres::url::PostgresUrl;

/// Longest wait for a connection to close in order.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(200);

/// Where the database is and how to reach it; connects on need.
pub(super) struct Connector {
    runtime: Arc<Runtime>,
    config: Config,
    tls: Option<MakeRustlsConnect>,
    session: Option<Session>,
    /// A pooler stands before the server: found out once.
    is_pooled: bool,
    backoff: Backoff,
    /// How long a connection may take to open.
    connect_within: Duration,
}

/// An open connection.
pub(super) struct Session {
    pub client: Client,
    /// Moves the bytes; ends when the client is dropped and the server has been told.
    transport: JoinHandle<()>,
    /// The process of the server whose session this is; `None` behind a pooler, where each transaction may have another.
    backend: Option<i32>,
    /// Opens the transaction of a batch.
    pub begin_batch: String,
    /// Prepared at the first use: before `migrate` there is no table to prepare them for.
    statements: Option<Statements>,
    /// Whether it has shown that others use it too.
    is_mixed_up: Cell<bool>,
}

/// The name under which a session is asked whether the settings that came with it have reached the server.
const MARK: &str = "million_rps.session";
/// What a pooler says to a setting at the start that it cannot keep (PgBouncer, RDS Proxy).
const SETTINGS_REFUSED: [&str; 2] = ["08P01", "0A000"];
/// What the server says when a statement's name is taken or unknown: another client's session has been there.
const NAMES_MIXED_UP: [&str; 2] = ["26000", "42P05"];

impl Connector {
    /// Reads the URL; connects later.
    pub fn new(url: &str) -> Result<Connector, StoreError> {
        let PostgresUrl { url, tls, certificate } = PostgresUrl::read(url)?;
        let mut config: Config = url.parse().map_err(|error| {
            // The parser's errors name the parameter, never the URL: it may hold a password.
            StoreError::Fatal(format!("DATABASE_URL cannot be used: {}", with_source(&error)))
        })?;
        config.connect_timeout(Duration::from_millis(POSTGRES_CONNECT_TIMEOUT_MS));
        config.keepalives_idle(Duration::from_secs(10));
        config.keepalives_interval(Duration::from_secs(5));
        config.keepalives_retries(3);
        config.tcp_user_timeout(Duration::from_millis(POSTGRES_REPLY_TIMEOUT_MS));
        if config.get_application_name().is_none() {
            config.application_name("million-rps");
        }
        // Over a socket of this machine nothing is encrypted, whatever is asked for, as in libpq.
        let is_local = !config.get_hosts().is_empty() && config.get_hosts().iter().all(|h| matches!(h, Host::Unix(_)));
        let tls = if is_local { TlsMode::Disable } else { tls };
        let tls = tls.apply(&mut config, certificate.as_ref())?;
        Ok(Connector {
            runtime: event_loop()?,
            config,
            tls,
            session: None,
            is_pooled: false,
            backoff: Backoff::default(),
            connect_within: Duration::from_millis(2 * POSTGRES_CONNECT_TIMEOUT_MS),
        })
    }

    /// The open session and the runtime that drives it; connects first where there is none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] at once while the last failure is so recent that another attempt would only load the
    /// server.
    pub fn session(&mut self) -> Result<(&Runtime, &mut Session), StoreError> {
        if self.session.as_ref().is_some_and(|session| session.client.is_closed()) {
            self.session = None;
        }
        if self.session.is_none() {
            self.backoff.check()?;
            match self.connect() {
                Ok(session) => {
                    self.backoff = Backoff::default();
                    self.session = Some(session);
                }
                Err(error) => {
                    self.backoff.failed(&error);
                    return Err(error);
                }
            }
        }
        Ok((&self.runtime, self.session.as_mut().expect("connected above")))
    }

    /// The session that the last call used, never another one: for the second half of a transaction. On a new connection
    /// its statements would take effect one by one, outside of any transaction and behind no fence.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when that session has ended, and its transaction with it.
    pub fn same_session(&mut self) -> Result<(&Runtime, &mut Session), StoreError> {
        match &mut self.session {
            Some(session) if !session.client.is_closed() => Ok((&self.runtime, session)),
            _ => Err(StoreError::Unavailable("PostgreSQL ended the connection in mid transaction".into())),
        }
    }

    /// The role that connects; what the server calls it without a name in the URL is not known here.
    pub fn user(&self) -> &str {
        self.config.get_user().unwrap_or("the role in DATABASE_URL")
    }

    /// One for the same server, which has connected to nobody yet.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the system refuses another event loop.
    pub fn another(&self) -> Result<Connector, StoreError> {
        let Connector { config, tls, is_pooled, connect_within, .. } = self;
        Ok(Connector {
            runtime: event_loop()?,
            config: config.clone(),
            tls: tls.clone(),
            session: None,
            is_pooled: *is_pooled,
            backoff: Backoff::default(),
            connect_within: *connect_within,
        })
    }

    /// Asks the server for nothing but an answer. A connection may have died unnoticed: then it is asked once more, over a
    /// new one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it does not answer; any other is an answer.
    pub fn ask(&mut self, patience: Duration) -> Result<(), StoreError> {
        self.connect_within(patience);
        let mut reused = self.is_connected();
        loop {
            let (runtime, session) = self.session()?;
            let asked = session.client.batch_execute("SELECT 1");
            let answer = runtime.block_on(within(patience, async { asked.await.map_err(store_error) }));
            let Err(error) = answer else { return Ok(()) };
            self.disconnect();
            if !std::mem::take(&mut reused) {
                return Err(error);
            }
        }
    }

    /// Where the server is.
    pub fn places(&self) -> String {
        places(&self.config)
    }

    /// Whether a connection is open, as far as is known without asking.
    pub fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// Drops the connection: after an error of which the session's state is not known. Whatever it had not committed is
    /// rolled back by the server.
    pub fn disconnect(&mut self) {
        if let Some(Session { client, transport, is_mixed_up, .. }) = self.session.take() {
            if is_mixed_up.get() {
                self.note_pooler();
            }
            drop(client);
            // Time to say goodbye. A server that does not listen is left without one.
            let _ = self.runtime.block_on(async { tokio::time::timeout(GOODBYE_TIMEOUT, transport).await });
        }
    }

    /// From now on a connection may take this long to open, and no longer than it otherwise may.
    pub fn connect_within(&mut self, patience: Duration) {
        self.connect_within = patience.min(Duration::from_millis(2 * POSTGRES_CONNECT_TIMEOUT_MS));
    }

    fn connect(&mut self) -> Result<Session, StoreError> {
        let runtime = Arc::clone(&self.runtime);
        runtime.block_on(async {
            let deadline = self.connect_within;
            tokio::time::timeout(deadline, self.open()).await.unwrap_or_else(|_| {
                let (places, patience_ms) = (places(&self.config), deadline.as_millis());
                Err(StoreError::Unavailable(format!("PostgreSQL at {places} did not answer within {patience_ms} ms")))
            })
        })
    }

    /// What it means that a connection could not be opened.
    fn unreached(&self, error: tokio_postgres::Error) -> StoreError {
        let is_answer = error.as_db_error().is_some();
        match store_error(error) {
            StoreError::Unavailable(text) if !is_answer => {
                StoreError::Unavailable(format!("PostgreSQL at {}: {text}", places(&self.config)))
            }
            other => other,
        }
    }

    /// Connects, and finds out whether the session is the server's own. A pooler that gives each transaction another one keeps no
    /// settings and no prepared statements, or shows them to other clients; it refuses settings at the start, or drops them.
    async fn open(&mut self) -> Result<Session, StoreError> {
        if !self.is_pooled {
            let mark = uuid::Uuid::now_v7().simple().to_string();
            let theirs = self.config.get_options().unwrap_or_default();
            let mut config = self.config.clone();
            config.options(format!(
                "{theirs} {} -c {MARK}={mark}",
                settings_as(|name, value| format!("-c {name}={value}"), " ")
            ));
            match self.dial(&config).await {
                Ok((client, transport)) => {
                    if let Some(backend) = own_backend(&client, &mark).await.map_err(store_error)? {
                        let begin_batch = begin_batch("");
                        return Ok(Session::new(client, transport, Some(backend), begin_batch));
                    }
                }
                Err(error) if error.code().is_some_and(|code| SETTINGS_REFUSED.contains(&code.code())) => {}
                Err(error) => return Err(self.unreached(error)),
            }
        }
        let (client, transport) = self.dial(&self.config).await.map_err(|error| self.unreached(error))?;
        self.note_pooler();
        let settings = settings_as(|name, value| format!("SET LOCAL {name} = {value}"), "; ");
        let begin_batch = begin_batch(&format!("; {settings}; {}", keep_commits(true)));
        Ok(Session::new(client, transport, None, begin_batch))
    }

    async fn dial(&self, config: &Config) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        Ok(match &self.tls {
            Some(tls) => {
                let (client, connection) = config.connect(tls.clone()).await?;
                (client, tokio::spawn(run(connection)))
            }
            None => {
                let (client, connection) = config.connect(NoTls).await?;
                (client, tokio::spawn(run(connection)))
            }
        })
    }

    fn note_pooler(&mut self) {
        if !std::mem::replace(&mut self.is_pooled, true) {
            tracing::info!(
                "PostgreSQL is reached through a pooler: settings go with each transaction, statements without names, and new \
                 todos by INSERT instead of COPY"
            );
        }
    }

    /// Whether a pooler stands before the server, as far as is known.
    pub fn is_pooled(&self) -> bool {
        self.is_pooled
    }
}

/// What drives a connection, in the thread that uses it.
fn event_loop() -> Result<Arc<Runtime>, StoreError> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map(Arc::new).map_err(|error| StoreError::Unavailable(format!("no event loop for PostgreSQL: {error}")))
}

/// Where the servers are.
fn places(config: &Config) -> String {
    let ports = config.get_ports();
    let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(5432);
    let name = |(at, host): (usize, &Host)| match host {
        Host::Tcp(name) => format!("{name}:{}", port(at)),
        Host::Unix(folder) => format!("{}/.s.PGSQL.{}", folder.display(), port(at)),
    };
    let names: Vec<String> = config.get_hosts().iter().enumerate().map(name).collect();
    if !names.is_empty() {
        return names.join(", ");
    }
    let addresses = config.get_hostaddrs().iter().enumerate();
    addresses.map(|(at, address)| format!("{address}:{}", port(at))).collect::<Vec<_>>().join(", ")
}

/// The time limits keep a worker that was stopped in mid transaction from holding its row locks: the server ends that session.
fn settings_as(one: impl Fn(&str, u64) -> String, separator: &str) -> String {
    let settings = [
        ("statement_timeout", POSTGRES_STATEMENT_TIMEOUT_MS),
        ("lock_timeout", POSTGRES_LOCK_TIMEOUT_MS),
        ("idle_in_transaction_session_timeout", POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT_MS),
    ];
    settings.map(|(name, value)| one(name, value)).join(separator)
}

/// A database that was set to lose commits at a crash is overruled; the other settings of synchronous_commit say who has to
/// have a commit besides this server, and stay.
fn keep_commits(local: bool) -> String {
    format!(
        "SELECT set_config('synchronous_commit', 'on', {local}) WHERE current_setting('synchronous_commit') = 'off'"
    )
}

/// Begins a batch. The server keeps the plans that it made for the first batches; of a table that was small then, the best
/// was to read all of it, and that would go on, however long the table gets, until its statistics are made anew. By index, a
/// batch costs what it changes from the first one on.
fn begin_batch(settings: &str) -> String {
    format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL enable_seqscan = off{settings}")
}

/// The number of the server's process, if this session is the one that was started with the mark.
async fn own_backend(client: &Client, mark: &str) -> Result<Option<i32>, tokio_postgres::Error> {
    let question = format!("SELECT current_setting('{MARK}', true), pg_backend_pid()");
    let answers = client.simple_query(&question).await?;
    let row = answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let Some(row) = row.filter(|row| row.get(0) == Some(mark)) else { return Ok(None) };
    client.batch_execute(&keep_commits(false)).await?;
    Ok(row.get(1).and_then(|pid| pid.parse().ok()))
}

impl Drop for Connector {
    fn drop(&mut self) {
        self.disconnect();
    }
}

async fn run<E: std::fmt::Display>(connection: impl Future<Output = Result<(), E>>) {
    if let Err(error) = connection.await {
        // Whoever used the connection gets an error of its own.
        tracing::debug!(%error, "a connection to PostgreSQL ended");
    }
}

impl Session {
    fn new(client: Client, transport: JoinHandle<()>, backend: Option<i32>, begin_batch: String) -> Session {
        Session { client, transport, backend, begin_batch, statements: None, is_mixed_up: Cell::new(false) }
    }

    /// The statements of a batch.
    pub async fn statements(&mut self) -> Result<Statements, StoreError> {
        if let Some(statements) = &self.statements {
            return Ok(statements.clone());
        }
        let statements = match self.backend {
            Some(_) => Statements::prepared(&self.client).await.map_err(|error| self.error(error))?,
            None => Statements::unnamed(),
        };
        self.statements = Some(statements.clone());
        Ok(statements)
    }

    /// What an error means; remembers when it shows that others use the same session.
    pub fn error(&self, error: tokio_postgres::Error) -> StoreError {
        if error.code().is_some_and(|code| NAMES_MIXED_UP.contains(&code.code())) {
            self.is_mixed_up.set(true);
        }
        store_error(error)
    }

    /// Makes sure that a transaction is run by the process that knows this session's statements: under the same names,
    /// another one may know others. Nothing has been committed yet.
    pub fn check_backend(&self, runs: i32) -> Result<(), StoreError> {
        if self.backend.is_none_or(|own| own == runs) {
            return Ok(());
        }
        self.is_mixed_up.set(true);
        Err(StoreError::Unavailable("a pooler has moved this session to another process of PostgreSQL".into()))
    }
}

/// Waits for one step of a conversation with the server, as long as the server itself may take for it and a little more.
///
/// # Errors
/// The step's own, or [`StoreError::Unavailable`]; then the session is in no known state and has to be dropped.
pub(super) async fn in_time<T>(step: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    within(Duration::from_millis(POSTGRES_REPLY_TIMEOUT_MS), step).await
}

/// The same with a wait of the caller's own.
pub(super) async fn within<T>(
    patience: Duration,
    step: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(patience, step).await.unwrap_or_else(|_| {
        Err(StoreError::Unavailable(format!("PostgreSQL did not answer within {} ms", patience.as_millis())))
    })
}

/// Spaces out attempts to connect.
#[derive(Default)]
struct Backoff {
    failures: u32,
    /// No attempt before this moment, and why the last one failed.
    blocked: Option<(Instant, StoreError)>,
}

impl Backoff {
    fn check(&self) -> Result<(), StoreError> {
        match &self.blocked {
            Some((until, StoreError::Misconfigured(reason))) if Instant::now() < *until => {
                Err(StoreError::Misconfigured(reason.clone()))
            }
            Some((until, StoreError::Unavailable(reason))) if Instant::now() < *until => {
                Err(StoreError::Unavailable(reason.clone()))
            }
            _ => Ok(()),
        }
    }

    fn failed(&mut self, error: &StoreError) {
        let wait_ms =
            (POSTGRES_RECONNECT_BACKOFF_MIN_MS << self.failures.min(16)).min(POSTGRES_RECONNECT_BACKOFF_MAX_MS);
        self.failures += 1;
        let error = match error {
            StoreError::Misconfigured(reason) => StoreError::Misconfigured(reason.clone()),
            StoreError::Unavailable(reason) => StoreError::Unavailable(reason.clone()),
            other => StoreError::Unavailable(other.to_string()),
        };
        self.blocked = Some((Instant::now() + Duration::from_millis(wait_ms), error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_cannot_be_reached_is_named_with_its_address() {
        for (url, place) in [
            ("postgres://me:secret@127.0.0.1:1/d", "PostgreSQL at 127.0.0.1:1: "),
            ("postgres://me:secret@127.0.0.1:1,localhost:2/d", "PostgreSQL at 127.0.0.1:1, localhost:2: "),
            ("postgres://me:secret@/d?host=/nowhere&sslmode=verify-full", "PostgreSQL at /nowhere/.s.PGSQL.5432: "),
        ] {
            let mut connector = Connector::new(url).expect("a usable URL");
            let Err(StoreError::Unavailable(text)) = connector.session().map(|_| ()) else { panic!("nobody is there") };
            assert!(text.starts_with(place) && !text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn an_unusable_url_is_named_without_its_password() {
        let Err(StoreError::Fatal(text)) = Connector::new("postgres://me:secret@h/d?nonsense=1").map(|_| ()) else {
            panic!("the URL has to be refused");
        };
        assert!(text.contains("nonsense") && !text.contains("secret"), "{text}");
    }
}

//! A connection to PostgreSQL: its URL, TLS, time limits, and what an error of the server means for the store.
//!
//! The client library is asynchronous; each store drives it on a small runtime of its own, inside the thread that calls
//! it. That gives every step a deadline on this side too: a frozen server keeps its TCP connections alive, so that
//! neither the server's own timeouts nor keepalives would end a call.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join5;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::limits::{
    POSTGRES_CONNECT_TIMEOUT_MS, POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT_MS, POSTGRES_LOCK_TIMEOUT_MS,
    POSTGRES_RECONNECT_BACKOFF_MAX_MS, POSTGRES_RECONNECT_BACKOFF_MIN_MS, POSTGRES_REPLY_TIMEOUT_MS,
    POSTGRES_STATEMENT_TIMEOUT_MS,
};
use crate::store::StoreError;
use crate::store::postgres_error::{store_error, with_source};

/// Longest wait for a connection to close in order.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(200);

/// Where the database is and how to reach it; connects on need.
pub(super) struct Connector {
    runtime: Runtime,
    config: Config,
    tls: Option<MakeRustlsConnect>,
    session: Option<Session>,
    backoff: Backoff,
    /// How long a connection may take to open.
    connect_within: Duration,
}

/// An open connection.
pub(super) struct Session {
    pub client: Client,
    /// Moves the bytes; ends when the client is dropped and the server has been told.
    transport: JoinHandle<()>,
    /// Prepared at the first use: before `migrate` there is no table to prepare them for.
    statements: Option<Statements>,
}

/// The statements of a batch, prepared.
#[derive(Clone)]
pub(super) struct Statements {
    pub transaction_number: Statement,
    pub select_rows: Statement,
    pub upsert_rows: Statement,
    pub delete_rows: Statement,
    pub insert_offsets: Statement,
    pub move_offsets: Statement,
}

const TRANSACTION_NUMBER: &str = "SELECT txid_current()";
const SELECT_ROWS: &str = "SELECT id, title, description, completed, user_id, created_at, updated_at \
     FROM todos WHERE id = ANY($1::text[])";
const UPSERT_ROWS: &str = "INSERT INTO todos (id, title, description, completed, user_id, created_at, updated_at) \
     SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[], $5::text[], $6::timestamptz[], \
     $7::timestamptz[]) \
     ON CONFLICT (id) DO UPDATE SET title = excluded.title, description = excluded.description, \
     completed = excluded.completed, user_id = excluded.user_id, created_at = excluded.created_at, \
     updated_at = excluded.updated_at";
const DELETE_ROWS: &str = "DELETE FROM todos WHERE id = ANY($1::text[])";
const INSERT_OFFSETS: &str = "INSERT INTO applied_offsets (topic, partition, next) \
     SELECT $1, step.partition, step.next FROM unnest($2::integer[], $3::bigint[]) AS step (partition, next) \
     ON CONFLICT DO NOTHING RETURNING partition";
const MOVE_OFFSETS: &str = "UPDATE applied_offsets AS applied SET next = step.next \
     FROM unnest($2::integer[], $3::bigint[], $4::bigint[]) AS step (partition, prior, next) \
     WHERE applied.topic = $1 AND applied.partition = step.partition AND applied.next = step.prior \
     RETURNING applied.partition";

impl Connector {
    /// Reads the URL; connects later.
    pub fn new(url: &str) -> Result<Connector, StoreError> {
        let (url, tls_mode) = take_tls_parameters(url)?;
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
        let tls = tls_mode.apply(&mut config)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| StoreError::Unavailable(format!("no event loop for PostgreSQL: {error}")))?;
        Ok(Connector {
            runtime,
            config,
            tls,
            session: None,
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

    /// Whether a connection is open, as far as is known without asking.
    pub fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// Drops the connection: after an error of which the session's state is not known. Whatever it had not committed is
    /// rolled back by the server.
    pub fn disconnect(&mut self) {
        if let Some(Session { client, transport, .. }) = self.session.take() {
            drop(client);
            // Time to say goodbye. A server that does not listen is left without one.
            let _ = self.runtime.block_on(async { tokio::time::timeout(GOODBYE_TIMEOUT, transport).await });
        }
    }

    /// From now on a connection may take this long to open, and no longer than it otherwise may.
    pub fn connect_within(&mut self, patience: Duration) {
        self.connect_within = patience.min(Duration::from_millis(2 * POSTGRES_CONNECT_TIMEOUT_MS));
    }

    fn connect(&self) -> Result<Session, StoreError> {
        self.runtime.block_on(async {
            let deadline = self.connect_within;
            tokio::time::timeout(deadline, self.open()).await.unwrap_or_else(|_| {
                Err(StoreError::Unavailable(format!("PostgreSQL did not answer within {} ms", deadline.as_millis())))
            })
        })
    }

    async fn open(&self) -> Result<Session, StoreError> {
        let (client, transport) = match &self.tls {
            Some(tls) => {
                let (client, connection) = self.config.connect(tls.clone()).await.map_err(store_error)?;
                (client, tokio::spawn(run(connection)))
            }
            None => {
                let (client, connection) = self.config.connect(NoTls).await.map_err(store_error)?;
                (client, tokio::spawn(run(connection)))
            }
        };
        // The time limits keep a worker that was stopped in mid transaction from holding its row locks: the server ends
        // that session. A database that was set to lose commits at a crash is overruled; the other settings of
        // synchronous_commit say who has to have a commit besides this server, and stay.
        let settings = format!(
            "SET statement_timeout = {POSTGRES_STATEMENT_TIMEOUT_MS}; SET lock_timeout = {POSTGRES_LOCK_TIMEOUT_MS}; \
             SET idle_in_transaction_session_timeout = {POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT_MS}; \
             SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit') = 'off'"
        );
        client.batch_execute(&settings).await.map_err(store_error)?;
        Ok(Session { client, transport, statements: None })
    }
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
    /// The statements of a batch.
    pub async fn statements(&mut self) -> Result<Statements, StoreError> {
        if let Some(statements) = &self.statements {
            return Ok(statements.clone());
        }
        let transaction_number = self.client.prepare(TRANSACTION_NUMBER).await.map_err(store_error)?;
        let (select_rows, upsert_rows, delete_rows, insert_offsets, move_offsets) = try_join5(
            self.client.prepare(SELECT_ROWS),
            self.client.prepare(UPSERT_ROWS),
            self.client.prepare(DELETE_ROWS),
            self.client.prepare(INSERT_OFFSETS),
            self.client.prepare(MOVE_OFFSETS),
        )
        .await
        .map_err(store_error)?;
        let statements =
            Statements { transaction_number, select_rows, upsert_rows, delete_rows, insert_offsets, move_offsets };
        self.statements = Some(statements.clone());
        Ok(statements)
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
    blocked: Option<(Instant, String)>,
}

impl Backoff {
    fn check(&self) -> Result<(), StoreError> {
        match &self.blocked {
            Some((until, reason)) if Instant::now() < *until => Err(StoreError::Unavailable(reason.clone())),
            _ => Ok(()),
        }
    }

    fn failed(&mut self, error: &StoreError) {
        let wait_ms =
            (POSTGRES_RECONNECT_BACKOFF_MIN_MS << self.failures.min(16)).min(POSTGRES_RECONNECT_BACKOFF_MAX_MS);
        self.failures += 1;
        let reason = match error {
            StoreError::Unavailable(reason) => reason.clone(),
            other => other.to_string(),
        };
        self.blocked = Some((Instant::now() + Duration::from_millis(wait_ms), reason));
    }
}

/// `sslmode` and `sslrootcert` of the URL, with libpq's meanings.
#[derive(Debug, PartialEq, Eq)]
enum TlsMode {
    /// Plain text.
    Disable,
    /// Encrypted if the server can; the certificate is not checked.
    Prefer,
    /// Encrypted; the certificate is checked only where a root is given.
    Require,
    /// Encrypted, and the certificate has to be signed for this host by a trusted root: the file, or the system's.
    Verify { root_file: Option<String> },
}

/// Takes the parameters of TLS out of the URL: the client library knows only some of them.
fn take_tls_parameters(url: &str) -> Result<(String, TlsMode), StoreError> {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let mut mode = None;
    let mut root_file = None;
    let mut others = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("sslmode", value)) => mode = Some(value),
            Some(("sslrootcert", value)) => root_file = Some(value.replace("%2F", "/").replace("%2f", "/")),
            _ => others.push(parameter),
        }
    }
    let mode = match (mode.unwrap_or("prefer"), root_file) {
        ("disable", _) => TlsMode::Disable,
        ("allow" | "prefer", _) => TlsMode::Prefer,
        ("require", None) => TlsMode::Require,
        ("require" | "verify-ca" | "verify-full", root_file) => {
            TlsMode::Verify { root_file: root_file.filter(|file| file != "system") }
        }
        (other, _) => {
            return Err(StoreError::Fatal(format!(
                "DATABASE_URL: sslmode={other} is unknown; use disable, prefer, require, verify-ca or verify-full"
            )));
        }
    };
    let url = if others.is_empty() { base.to_owned() } else { format!("{base}?{}", others.join("&")) };
    Ok((url, mode))
}

impl TlsMode {
    fn apply(self, config: &mut Config) -> Result<Option<MakeRustlsConnect>, StoreError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| StoreError::Fatal(format!("TLS for PostgreSQL: {error}")))?;
        let client = match self {
            TlsMode::Disable => {
                config.ssl_mode(SslMode::Disable);
                return Ok(None);
            }
            TlsMode::Prefer | TlsMode::Require => {
                config.ssl_mode(if self == TlsMode::Prefer { SslMode::Prefer } else { SslMode::Require });
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
                    .with_no_client_auth()
            }
            TlsMode::Verify { root_file } => {
                config.ssl_mode(SslMode::Require);
                builder.with_root_certificates(roots(root_file.as_deref())?).with_no_client_auth()
            }
        };
        Ok(Some(MakeRustlsConnect::new(client)))
    }
}

fn roots(file: Option<&str>) -> Result<RootCertStore, StoreError> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(file) => {
            let unreadable = |reason: String| StoreError::Fatal(format!("DATABASE_URL: sslrootcert={file}: {reason}"));
            for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unreadable(error.to_string()))? {
                let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
                roots.add(certificate).map_err(|error| unreadable(error.to_string()))?;
            }
        }
        None => {
            // A root that cannot be used is no reason to fail: another may be the right one.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(StoreError::Fatal(
            "TLS for PostgreSQL: no root certificate to trust; install ca-certificates or give sslrootcert=FILE".into(),
        ));
    }
    Ok(roots)
}

/// Accepts every certificate, as libpq does for `sslmode=require`: the connection is encrypted, and nothing says who is
/// at its other end. Signatures of the handshake are still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_parameters_leave_the_url_and_get_their_meaning() {
        let taken = |url| take_tls_parameters(url).expect("a usable URL");
        assert_eq!(taken("postgres://h/d"), ("postgres://h/d".into(), TlsMode::Prefer));
        assert_eq!(taken("postgres://h/d?sslmode=disable"), ("postgres://h/d".into(), TlsMode::Disable));
        assert_eq!(
            taken("postgres://h/d?connect_timeout=3&sslmode=verify-full&sslrootcert=%2Fetc%2Froot.pem"),
            ("postgres://h/d?connect_timeout=3".into(), TlsMode::Verify { root_file: Some("/etc/root.pem".into()) })
        );
        assert_eq!(taken("postgres://h/d?sslmode=require").1, TlsMode::Require);
        assert!(take_tls_parameters("postgres://h/d?sslmode=maybe").is_err());
    }

    #[test]
    fn an_unusable_url_is_named_without_its_password() {
        let Err(StoreError::Fatal(text)) = Connector::new("postgres://me:secret@h/d?nonsense=1").map(|_| ()) else {
            panic!("the URL has to be refused");
        };
        assert!(text.contains("nonsense") && !text.contains("secret"), "{text}");
    }
}

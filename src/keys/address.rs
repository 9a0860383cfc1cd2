//! The keys of an https address, fetched by a thread of its own.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use super::schedule::{Schedule, good_for_ms};
use crate::auth::{ReadSet, SetOrigin, UnixSeconds, read_key_set};
use crate::config::ConnectionUrl;
use crate::limits::{KEY_FETCH_TIMEOUT_MS, KEY_FILES_LOOK_MS, KEYS_MAX_BYTES};

pub const THREAD: &str = "key-fetch";

/// What a fetch has brought.
pub struct Fetched {
    /// When it began: what the issuer changed later is not in it.
    pub at: UnixSeconds,
    /// The keys, or why there are none.
    pub outcome: Result<ReadSet, String>,
}

/// A place that keys are fetched from.
pub struct KeyAddress {
    /// Where.
    pub url: ConnectionUrl,
    /// How long keys are good at most.
    pub refresh: Duration,
    /// A file with the authorities that may vouch for the place; `None`: those of the system.
    pub authorities: Option<PathBuf>,
}

impl KeyAddress {
    /// Starts the thread. It hands what it fetches to `fetched`, and fetches early when a wish comes by `wishes`. Nobody waits for
    /// its end, which a place that does not answer could put off; it has nothing to finish. `at_end` is dropped then, also after a
    /// panic.
    ///
    /// # Errors
    /// The system refuses another thread.
    pub fn start(
        self,
        wishes: Receiver<()>,
        fetched: Sender<Fetched>,
        stop: Arc<AtomicBool>,
        at_end: impl Send + 'static,
    ) -> std::io::Result<()> {
        let run = move || {
            let _at_end = at_end;
            self.run(&wishes, &fetched, &stop);
        };
        std::thread::Builder::new().name(THREAD.into()).spawn(run).map(drop)
    }

    fn run(&self, wishes: &Receiver<()>, fetched: &Sender<Fetched>, stop: &AtomicBool) {
        let started_at = Instant::now();
        let now_ms = || u64::try_from(started_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut schedule = Schedule::new(u64::try_from(self.refresh.as_millis()).unwrap_or(u64::MAX));
        while !stop.load(Ordering::Relaxed) {
            let wait_ms = schedule.wait_ms(now_ms());
            if wait_ms == 0 {
                let (at_ms, at) = (now_ms(), unix_seconds());
                let outcome = match self.fetch() {
                    Ok((set, good_for_ms)) => {
                        schedule.succeed(at_ms, good_for_ms, chance());
                        Ok(set)
                    }
                    Err(reason) => {
                        // From its end on: one that took long is not followed by the next at once.
                        schedule.fail(now_ms(), chance());
                        Err(reason)
                    }
                };
                if fetched.send(Fetched { at, outcome }).is_err() {
                    return;
                }
                continue;
            }
            match wishes.recv_timeout(Duration::from_millis(wait_ms.min(KEY_FILES_LOOK_MS))) {
                Ok(()) => schedule.ask(now_ms()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(KEY_FILES_LOOK_MS)),
            }
        }
    }

    /// Fetches once: the keys, and for how long the answer is good.
    fn fetch(&self) -> Result<(ReadSet, Option<u64>), String> {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::Specific(Arc::new(self.roots()?)))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let agent = ureq::Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            // Keys are taken from the place that is set, and from none that it sends us to.
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_millis(KEY_FETCH_TIMEOUT_MS)))
            .max_idle_connections(0)
            .user_agent(concat!("million-rps/", env!("CARGO_PKG_VERSION")))
            .accept("application/jwk-set+json, application/json")
            .build()
            .new_agent();
        let mut answer = agent.get(self.url.expose()).call().map_err(|error| reason_of(&error))?;
        match answer.status().as_u16() {
            200 => {}
            status @ 300..400 => {
                return Err(format!(
                    "it answered with status {status}, a redirect, which is not followed: set JWT_JWKS to where it leads"
                ));
            }
            status => return Err(format!("it answered with status {status}")),
        }
        let good_for_ms = answer.headers().get("cache-control").and_then(|field| good_for_ms(field.to_str().ok()?));
        let body = answer.body_mut().with_config().limit(KEYS_MAX_BYTES as u64).read_to_vec();
        let body = body.map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(_) => format!("its answer has more than {KEYS_MAX_BYTES} bytes"),
            ureq::Error::Timeout(_) => reason_of(&error),
            other => format!("its answer broke off: {}", reason_of(&other)),
        })?;
        Ok((read_key_set(&body, SetOrigin::Address)?, good_for_ms))
    }

    /// The authorities, read at each fetch: they change, too.
    fn roots(&self) -> Result<Vec<Certificate<'static>>, String> {
        let of = |der: &CertificateDer<'_>| Certificate::from_der(der).to_owned();
        let Some(path) = &self.authorities else {
            return Ok(rustls_native_certs::load_native_certs().certs.iter().map(of).collect());
        };
        let unreadable = |reason: String| format!("JWT_JWKS_CA_FILE ({}): {reason}", path.display());
        let pem = fs::read(path).map_err(|error| unreadable(format!("it cannot be read: {error}")))?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let certificates = certificates.map_err(|_| unreadable("it is broken".to_owned()))?;
        match certificates.is_empty() {
            true => Err(unreadable("it has no certificate in PEM".to_owned())),
            false => Ok(certificates.iter().map(of).collect()),
        }
    }
}

/// The address may have a password, which the client's errors could show.
fn reason_of(error: &ureq::Error) -> String {
    match error {
        ureq::Error::BadUri(_) => "the address is none".to_owned(),
        ureq::Error::Timeout(_) => format!("it did not answer within {KEY_FETCH_TIMEOUT_MS} ms"),
        other => other.to_string(),
    }
}

fn unix_seconds() -> UnixSeconds {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixSeconds::try_from(since_epoch.as_secs()).unwrap_or(UnixSeconds::MAX)
}

/// A number from 0 to 1.
fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX)
}

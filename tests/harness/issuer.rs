//! Whoever issues tokens: keys that the tests sign with, and a server that has the public ones at an https address and does what
//! such servers do on a bad day.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::server::Setup;
use super::token::encode;

/// A key of an issuer.
#[derive(Debug, Clone, Copy)]
pub enum IssuerKey {
    /// RSA with 2048 bits.
    Rsa,
    /// P-256.
    Ec,
    /// Ed25519.
    Ed,
}

impl IssuerKey {
    /// The file with the private key or with the public one.
    fn path(self, ending: &str) -> PathBuf {
        let name = match self {
            IssuerKey::Rsa => "rsa",
            IssuerKey::Ec => "ec",
            IssuerKey::Ed => "ed",
        };
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harness/keys").join(format!("{name}.{ending}"))
    }

    /// The file with the private key.
    pub fn private(self) -> PathBuf {
        self.path("pem")
    }

    /// The file with the public key.
    pub fn public(self) -> PathBuf {
        self.path("pub.pem")
    }

    /// The public key in a key set, with this name.
    pub fn jwk(self, kid: &str) -> Value {
        let pem = std::fs::read_to_string(self.public()).expect("the key is in the repository");
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = STANDARD.decode(body).expect("base64");
        let last = |bytes: usize, behind: usize| encode(&der[der.len() - bytes - behind..der.len() - behind]);
        match self {
            // The exponent, 65537, stands behind the modulus.
            IssuerKey::Rsa => {
                json!({ "kty": "RSA", "kid": kid, "alg": "RS256", "use": "sig", "n": last(256, 5), "e": "AQAB" })
            }
            IssuerKey::Ec => json!({ "kty": "EC", "kid": kid, "crv": "P-256", "x": last(32, 32), "y": last(32, 0) }),
            IssuerKey::Ed => json!({ "kty": "OKP", "kid": kid, "crv": "Ed25519", "x": last(32, 0) }),
        }
    }

    /// A token that it has signed, for an hour, which calls it `kid`; made by `million-rps token` with the settings of `setup`.
    pub fn token(self, setup: &Setup, sub: &str, kid: &str) -> String {
        let key = self.private();
        let key = key.to_str().expect("a path in UTF-8");
        let token = setup.run_successfully(&["token", "--sub", sub, "--ttl", "1h", "--key", key, "--kid", kid]);
        token.trim().to_owned()
    }
}

/// A key set of these keys.
pub fn key_set(keys: &[(IssuerKey, &str)]) -> String {
    json!({ "keys": keys.iter().map(|(key, kid)| key.jwk(kid)).collect::<Vec<_>>() }).to_string()
}

/// What the issuer answers.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// This, with status 200 and these fields.
    Answers(String, &'static str),
    /// This status, and no more.
    Fails(u16),
    /// That everything is somewhere else: at this address.
    SendsTo(String),
    /// So many bytes, without end in sight.
    Floods(usize),
    /// Less than it has promised.
    BreaksOff,
    /// Nothing, until the client gives up.
    IsSilent,
}

impl Behaviour {
    /// These keys.
    pub fn keys(keys: &[(IssuerKey, &str)]) -> Behaviour {
        Behaviour::Answers(key_set(keys), "Content-Type: application/json\r\n")
    }
}

/// The server.
pub struct Issuer {
    address: SocketAddr,
    folder: tempfile::TempDir,
    behaviour: Arc<Mutex<Behaviour>>,
    asked: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Issuer {
    /// A server with a certificate of an authority of its own.
    pub fn start(behaviour: Behaviour) -> Issuer {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().expect("a key");
        let authority_certificate = authority.self_signed(&authority_key).expect("a certificate");
        std::fs::write(folder.path().join("authority.pem"), authority_certificate.pem()).expect("written");
        let key = KeyPair::generate().expect("a key");
        let names = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let signer = rcgen::Issuer::new(authority, authority_key);
        let certificate = names.signed_by(&key, &signer).expect("a certificate");
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .expect("a certificate with its key");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let issuer = Issuer {
            address: listener.local_addr().expect("it is bound"),
            folder,
            behaviour: Arc::new(Mutex::new(behaviour)),
            asked: Arc::default(),
            stop: Arc::default(),
        };
        let (behaviour, asked, stop) =
            (Arc::clone(&issuer.behaviour), Arc::clone(&issuer.asked), Arc::clone(&issuer.stop));
        let config = Arc::new(config);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (config, behaviour, asked) = (Arc::clone(&config), Arc::clone(&behaviour), Arc::clone(&asked));
                // One that goes away early is none of the server's troubles.
                std::thread::spawn(move || drop(answer(client, config, &behaviour, &asked)));
            }
        });
        issuer
    }

    /// Where the keys are.
    pub fn url(&self) -> String {
        format!("https://localhost:{}/keys", self.address.port())
    }

    /// The file with the authority that vouches for it.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// Behaves like this from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().expect("no test has failed in here") = behaviour;
    }

    /// How often it was asked so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// A server that takes this issuer's tokens, and no others.
    pub fn setup(&self) -> Setup {
        let authority = self.authority();
        Setup::new()
            .unset("JWT_SECRET")
            .set("JWT_JWKS", &self.url())
            .set("JWT_JWKS_CA_FILE", authority.to_str().expect("a path in UTF-8"))
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn answer(
    client: TcpStream,
    config: Arc<ServerConfig>,
    behaviour: &Mutex<Behaviour>,
    asked: &AtomicUsize,
) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(30)))?;
    client.set_write_timeout(Some(Duration::from_secs(30)))?;
    let mut stream = StreamOwned::new(ServerConnection::new(config).map_err(std::io::Error::other)?, client);
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    asked.fetch_add(1, Ordering::SeqCst);
    let behaviour = behaviour.lock().expect("no test has failed in here").clone();
    match behaviour {
        Behaviour::Answers(body, fields) => {
            write!(stream, "HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())?;
        }
        Behaviour::Fails(status) => write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n")?,
        Behaviour::SendsTo(url) => {
            write!(stream, "HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n")?
        }
        Behaviour::Floods(bytes) => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n")?;
            for _ in 0..bytes / 65_536 {
                stream.write_all(&[b' '; 65_536])?;
            }
        }
        Behaviour::BreaksOff => write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{{\"keys\":[")?,
        Behaviour::IsSilent => {
            let _ = stream.read(&mut byte);
        }
    }
    stream.conn.send_close_notify();
    stream.flush()
}

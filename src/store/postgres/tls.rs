//! TLS to PostgreSQL, as libpq's parameters of the URL ask for it.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::StoreError;
use crate::store::postgres::error::refused;

/// `sslmode` and `sslrootcert` of the URL, with libpq's meanings.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TlsMode {
    /// Plain text.
    Disable,
    /// Encrypted if the server can; the certificate is not checked.
    Prefer,
    /// Encrypted; the certificate is checked only where a root is given.
    Require,
    /// Encrypted, and the certificate has to be signed for this host by a trusted root: the file, or the system's.
    Verify { root_file: Option<String> },
}

/// `sslcert` and `sslkey`: files in PEM of the certificate that this program shows, with those that sign it, and of its key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientCertificate {
    pub certificate: String,
    pub key: String,
}

impl TlsMode {
    /// What `sslmode` and `sslrootcert` ask for.
    ///
    /// # Errors
    /// [`StoreError::Fatal`]: there is no such mode.
    pub(super) fn read(mode: &str, root_file: Option<String>) -> Result<TlsMode, StoreError> {
        Ok(match (mode, root_file) {
            ("disable", _) => TlsMode::Disable,
            ("allow" | "prefer", _) => TlsMode::Prefer,
            ("require", None) => TlsMode::Require,
            ("require" | "verify-ca" | "verify-full", root_file) => {
                TlsMode::Verify { root_file: root_file.filter(|file| file != "system") }
            }
            (other, _) => {
                return Err(refused(&format!(
                    "sslmode={other} is unknown; use disable, prefer, require, verify-ca or verify-full"
                )));
            }
        })
    }

    /// Tells the configuration, and makes what connects over TLS.
    ///
    /// # Errors
    /// [`StoreError::Fatal`]: no root to trust, or one that cannot be read.
    pub(super) fn apply(
        self,
        config: &mut Config,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Option<MakeRustlsConnect>, StoreError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| StoreError::Fatal(format!("TLS for PostgreSQL: {error}")))?;
        let builder = match self {
            TlsMode::Disable => {
                config.ssl_mode(SslMode::Disable);
                return Ok(None);
            }
            TlsMode::Prefer | TlsMode::Require => {
                config.ssl_mode(if self == TlsMode::Prefer { SslMode::Prefer } else { SslMode::Require });
                builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            }
            TlsMode::Verify { root_file } => {
                config.ssl_mode(SslMode::Require);
                builder.with_root_certificates(roots(root_file.as_deref())?)
            }
        };
        let client = match certificate {
            None => builder.with_no_client_auth(),
            Some(ClientCertificate { certificate, key }) => {
                let unusable = |reason: String| refused(&format!("sslcert={certificate}, sslkey={key}: {reason}"));
                let chain = CertificateDer::pem_file_iter(certificate)
                    .and_then(Iterator::collect)
                    .map_err(|error| unusable(format!("the certificate cannot be read: {error}")))?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| {
                    unusable(format!("the key cannot be read, or has a password, which is not asked for: {error}"))
                })?;
                builder.with_client_auth_cert(chain, key).map_err(|error| unusable(error.to_string()))?
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

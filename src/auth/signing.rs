//! Keys that tokens are signed with: for `million-rps token`, and for nothing that serves.

use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;

use super::Algorithm;
use crate::config::Secret;

/// A key to sign with, and what it is for.
pub struct SigningKey {
    algorithm: Algorithm,
    pair: Pair,
}

enum Pair {
    Hmac(hmac::Key),
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// Why nothing can be signed.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    /// Not a private key as OpenSSL writes it.
    #[error(
        "it has no private key in PKCS #8 (-----BEGIN PRIVATE KEY-----) of RSA with 2048 bits or more, P-256 or Ed25519; \
         `openssl pkcs8 -topk8 -nocrypt` makes that form of others"
    )]
    NoKey,
    /// The algorithm that was asked for is none of this key.
    #[error("it is no key of {0}")]
    OtherAlgorithm(Algorithm),
    /// The system has no random numbers.
    #[error("the key could not be used to sign")]
    Refused,
}

impl SigningKey {
    /// A secret, for HS256.
    pub fn from_secret(secret: &Secret) -> SigningKey {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        SigningKey { algorithm: Algorithm::Hs256, pair: Pair::Hmac(key) }
    }

    /// A private key in PEM. `wanted` chooses between the algorithms of RSA; RS256 unless given.
    ///
    /// # Errors
    /// [`SigningKeyError`].
    pub fn from_pem(pem: &[u8], wanted: Option<Algorithm>) -> Result<SigningKey, SigningKeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| SigningKeyError::NoKey)?;
        let der = der.secret_pkcs8_der();
        let of_p256 =
            || EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new());
        let (own, pair) = if let Ok(pair) = RsaKeyPair::from_pkcs8(der) {
            (Algorithm::Rs256, Pair::Rsa(pair))
        } else if let Ok(pair) = of_p256() {
            (Algorithm::Es256, Pair::P256(pair))
        } else if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            (Algorithm::EdDsa, Pair::Ed25519(pair))
        } else {
            return Err(SigningKeyError::NoKey);
        };
        match wanted.unwrap_or(own) {
            algorithm @ Algorithm::Ps256 if own == Algorithm::Rs256 => Ok(SigningKey { algorithm, pair }),
            algorithm if algorithm == own => Ok(SigningKey { algorithm, pair }),
            other => Err(SigningKeyError::OtherAlgorithm(other)),
        }
    }

    /// What it signs with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The signature of a message.
    ///
    /// # Errors
    /// [`SigningKeyError::Refused`].
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningKeyError> {
        let random = SystemRandom::new();
        Ok(match &self.pair {
            Pair::Hmac(key) => hmac::sign(key, message).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let padding: &dyn signature::RsaEncoding = match self.algorithm {
                    Algorithm::Ps256 => &signature::RSA_PSS_SHA256,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signed = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, message, &mut signed).map_err(|_| SigningKeyError::Refused)?;
                signed
            }
            Pair::P256(pair) => pair.sign(&random, message).map_err(|_| SigningKeyError::Refused)?.as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        })
    }
}

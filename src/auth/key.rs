//! A key that tokens are checked with. Its algorithm is a part of it.

use std::fmt;

use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use ring::{digest, hmac};

use super::Algorithm;
use crate::config::Secret;
use crate::counted::Counted;
use crate::limits::{RSA_KEY_MAX_BITS, RSA_KEY_MIN_BITS};

/// A key with its algorithm, and the name that tokens may call it by.
pub struct Key {
    id: Option<Box<str>>,
    algorithm: Algorithm,
    material: Material,
    fingerprint: [u8; digest::SHA256_OUTPUT_LEN],
}

enum Material {
    Hmac(hmac::Key),
    Rsa(RsaPublicKeyComponents<Box<[u8]>>),
    /// A point, uncompressed.
    P256([u8; P256_POINT_BYTES]),
    Ed25519([u8; ED25519_BYTES]),
}

const P256_POINT_BYTES: usize = 65;
const P256_COORDINATE_BYTES: usize = 32;
const ED25519_BYTES: usize = 32;

/// Why bytes are no key. The text has none of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// HMAC with a key shorter than its hash (RFC 7518 section 3.2).
    #[error("a key of {algorithm} has at least {least}, and this one has {held}", least = Counted(*.least, "bytes"), held = Counted(*.held, "bytes"))]
    ShortSecret {
        /// Of which algorithm.
        algorithm: Algorithm,
        /// Fewest bytes.
        least: usize,
        /// Bytes that it has.
        held: usize,
    },
    /// RSA with a modulus that is too short to be safe, or too long to be checked in reasonable time.
    #[error("an RSA key has {RSA_KEY_MIN_BITS} to {RSA_KEY_MAX_BITS} bits, and this one has {0}")]
    RsaBits(usize),
    /// RSA with numbers that are none of a key.
    #[error("modulus or exponent are none of an RSA key")]
    RsaNumbers,
    /// Another length, or a compressed point.
    #[error("these are not the bytes of a {0} key")]
    Bytes(&'static str),
}

impl Key {
    /// The key of HS256 that a secret is.
    pub fn from_secret(secret: &Secret) -> Key {
        Key::of_hmac(Algorithm::Hs256, hmac::HMAC_SHA256, None, secret.expose().as_bytes())
    }

    /// A key of one of the HMAC algorithms.
    ///
    /// # Errors
    /// [`KeyFault::ShortSecret`]; [`KeyFault::Bytes`] for another algorithm.
    pub(super) fn hmac(algorithm: Algorithm, id: Option<Box<str>>, secret: &[u8]) -> Result<Key, KeyFault> {
        let (kind, least) = match algorithm {
            Algorithm::Hs256 => (hmac::HMAC_SHA256, digest::SHA256_OUTPUT_LEN),
            Algorithm::Hs384 => (hmac::HMAC_SHA384, digest::SHA384_OUTPUT_LEN),
            Algorithm::Hs512 => (hmac::HMAC_SHA512, digest::SHA512_OUTPUT_LEN),
            Algorithm::Rs256 | Algorithm::Ps256 | Algorithm::Es256 | Algorithm::EdDsa => {
                return Err(KeyFault::Bytes(algorithm.name()));
            }
        };
        if secret.len() < least {
            return Err(KeyFault::ShortSecret { algorithm, least, held: secret.len() });
        }
        Ok(Key::of_hmac(algorithm, kind, id, secret))
    }

    fn of_hmac(algorithm: Algorithm, kind: hmac::Algorithm, id: Option<Box<str>>, secret: &[u8]) -> Key {
        Key::new(algorithm, id, Material::Hmac(hmac::Key::new(kind, secret)), &[secret])
    }

    /// An RSA key, from its numbers without sign.
    ///
    /// # Errors
    /// [`KeyFault::RsaBits`] and [`KeyFault::RsaNumbers`]; [`KeyFault::Bytes`] for an algorithm without RSA.
    pub(super) fn rsa(algorithm: Algorithm, id: Option<Box<str>>, n: &[u8], e: &[u8]) -> Result<Key, KeyFault> {
        if !matches!(algorithm, Algorithm::Rs256 | Algorithm::Ps256) {
            return Err(KeyFault::Bytes(algorithm.name()));
        }
        let (n, e) = (without_zeros(n), without_zeros(e));
        let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
        if !(RSA_KEY_MIN_BITS..=RSA_KEY_MAX_BITS).contains(&bits) {
            return Err(KeyFault::RsaBits(bits));
        }
        // Longer exponents are for nothing but long checks; `ring` takes 33 bits.
        let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
        if !is_odd(n) || !is_odd(e) || e == [1] || e.len() > 4 {
            return Err(KeyFault::RsaNumbers);
        }
        let material = Material::Rsa(RsaPublicKeyComponents { n: n.into(), e: e.into() });
        Ok(Key::new(algorithm, id, material, &[n, e]))
    }

    /// A key of ES256, from the coordinates of its point.
    ///
    /// # Errors
    /// [`KeyFault::Bytes`]: they have another length (RFC 7518 section 6.2.1.2).
    pub(super) fn p256(id: Option<Box<str>>, x: &[u8], y: &[u8]) -> Result<Key, KeyFault> {
        if x.len() != P256_COORDINATE_BYTES || y.len() != P256_COORDINATE_BYTES {
            return Err(KeyFault::Bytes("P-256"));
        }
        Key::p256_point(id, &[&[4], x, y].concat())
    }

    /// The same from the uncompressed point. One that is not on the curve verifies nothing: `ring` looks at each check.
    ///
    /// # Errors
    /// [`KeyFault::Bytes`].
    pub(super) fn p256_point(id: Option<Box<str>>, point: &[u8]) -> Result<Key, KeyFault> {
        match <[u8; P256_POINT_BYTES]>::try_from(point) {
            Ok(point) if point[0] == 4 => Ok(Key::new(Algorithm::Es256, id, Material::P256(point), &[&point])),
            _ => Err(KeyFault::Bytes("P-256")),
        }
    }

    /// A key of EdDSA.
    ///
    /// # Errors
    /// [`KeyFault::Bytes`].
    pub(super) fn ed25519(id: Option<Box<str>>, x: &[u8]) -> Result<Key, KeyFault> {
        let point = <[u8; ED25519_BYTES]>::try_from(x).map_err(|_| KeyFault::Bytes("Ed25519"))?;
        Ok(Key::new(Algorithm::EdDsa, id, Material::Ed25519(point), &[x]))
    }

    fn new(algorithm: Algorithm, id: Option<Box<str>>, material: Material, parts: &[&[u8]]) -> Key {
        let mut context = digest::Context::new(&digest::SHA256);
        let name = id.as_deref().unwrap_or_default().as_bytes();
        for part in [algorithm.name().as_bytes(), &[u8::from(id.is_some())], name].iter().chain(parts) {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut fingerprint = [0; digest::SHA256_OUTPUT_LEN];
        fingerprint.copy_from_slice(context.finish().as_ref());
        Key { id, algorithm, material, fingerprint }
    }

    /// What tokens call it (`kid`).
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// What it is for.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether this is the signature of `message` by whoever holds the key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            // In a time that does not depend on how much of it is right; a signature that is cut off is refused, too.
            Material::Hmac(key) => hmac::verify(key, message, signature).is_ok(),
            Material::Rsa(key) => {
                let parameters = match self.algorithm {
                    Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
                    _ => &signature::RSA_PKCS1_2048_8192_SHA256,
                };
                key.verify(parameters, message, signature).is_ok()
            }
            Material::P256(point) => {
                let key = UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
                key.verify(message, signature).is_ok()
            }
            Material::Ed25519(point) => {
                UnparsedPublicKey::new(&signature::ED25519, point).verify(message, signature).is_ok()
            }
        }
    }
}

/// The same bytes for the same algorithm, under the same name.
impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, {:?})", self.algorithm, self.id)
    }
}

/// Some issuers write a sign byte before the modulus, which RFC 7518 section 6.3.1.1 forbids.
fn without_zeros(number: &[u8]) -> &[u8] {
    &number[number.iter().position(|byte| *byte != 0).unwrap_or(number.len())..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
    }

    /// RFC 4231 sections 4.3, 4.4, 4.7 and 4.8: short and long keys and messages, keys over a block.
    #[test]
    fn test_vectors_of_rfc_4231() {
        let cases: [(Vec<u8>, &[u8], &str); 4] = [
            (
                b"Jefe".to_vec(),
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (vec![0xaa; 20], &[0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
            (
                vec![0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (
                vec![0xaa; 131],
                b"This is a test using a larger than block-size key and a larger than block-size data. The key needs to \
                  be hashed before being used by the HMAC algorithm.",
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
            ),
        ];
        for (key, message, expected) in cases {
            let key = Key::of_hmac(Algorithm::Hs256, hmac::HMAC_SHA256, None, &key);
            assert!(key.verifies(message, &bytes(expected)), "{}", String::from_utf8_lossy(message));
            for length in 0..32 {
                assert!(!key.verifies(message, &bytes(expected)[..length]), "{length} bytes");
            }
            assert!(!key.verifies(message, &[&bytes(expected)[..], b"x"].concat()));
            for bit in 0..256 {
                let mut wrong = bytes(expected);
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert!(!key.verifies(message, &wrong), "bit {bit}");
            }
        }
    }

    #[test]
    fn what_is_no_key_of_its_algorithm_is_refused() {
        let short = Key::hmac(Algorithm::Hs512, None, &[7; 63]);
        assert_eq!(short, Err(KeyFault::ShortSecret { algorithm: Algorithm::Hs512, least: 64, held: 63 }));
        assert!(Key::hmac(Algorithm::Hs384, None, &[7; 48]).is_ok());
        assert!(Key::hmac(Algorithm::Rs256, None, &[7; 300]).is_err(), "a public key is no secret");
        assert_eq!(Key::rsa(Algorithm::Rs256, None, &[0xff; 128], &[3]), Err(KeyFault::RsaBits(1024)));
        assert_eq!(Key::rsa(Algorithm::Rs256, None, &[0xff; 2048], &[3]), Err(KeyFault::RsaBits(16_384)));
        assert!(Key::rsa(Algorithm::Ps256, None, &[&[0][..], &[0xff; 256]].concat(), &[1, 0, 1]).is_ok());
        for exponent in [&[][..], &[1], &[2], &[1, 0, 0, 0, 1]] {
            assert_eq!(Key::rsa(Algorithm::Rs256, None, &[0xff; 256], exponent), Err(KeyFault::RsaNumbers));
        }
        assert!(Key::rsa(Algorithm::Es256, None, &[0xff; 256], &[3]).is_err());
        assert!(Key::p256_point(None, &[2; 33]).is_err() && Key::p256(None, &[1; 31], &[1; 32]).is_err());
        assert!(Key::ed25519(None, &[1; 31]).is_err() && Key::ed25519(None, &[1; 32]).is_ok());
    }

    #[test]
    fn a_key_is_its_bytes_its_algorithm_and_its_name() {
        let key = |algorithm, id: Option<&str>, n| Key::rsa(algorithm, id.map(Into::into), &[n; 256], &[3]).unwrap();
        let first = key(Algorithm::Rs256, Some("a"), 0xff);
        assert_eq!(first, key(Algorithm::Rs256, Some("a"), 0xff));
        for other in [
            key(Algorithm::Ps256, Some("a"), 0xff),
            key(Algorithm::Rs256, Some("b"), 0xff),
            key(Algorithm::Rs256, Some(""), 0xff),
            key(Algorithm::Rs256, None, 0xff),
            key(Algorithm::Rs256, Some("a"), 0xfd),
        ] {
            assert_ne!(first, other);
        }
    }
}

//! HS256 for the token library: HMAC with SHA-256 (RFC 7518 section 3.2), and nothing else.
//!
//! The library's own backends bring every algorithm that a token may have: one of them an implementation of RSA that leaks its
//! key through time (RUSTSEC-2023-0071), the other a C library that needs more than a C compiler. A deployment that takes
//! tokens of other algorithms will choose one for them; what is not known here is refused, not passed on.

use hmac::{Hmac, Mac};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{Error, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey};
use sha2::Sha256;

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| Ok(Box::new(Hs256::new(*algorithm, key.family(), || Ok(key.as_bytes()))?)),
    verifier_factory: |algorithm, key| Ok(Box::new(Hs256::new(*algorithm, key.family(), || key.try_get_as_bytes())?)),
    // Only for keys in JSON (RFC 7517), which are not read.
    key_utils: KeyUtils::new_unimplemented(),
};

/// A key that tokens are signed with.
pub(super) fn encoding_key(secret: &[u8]) -> EncodingKey {
    install();
    EncodingKey::from_secret(secret)
}

/// A key that tokens are checked with.
pub(super) fn decoding_key(secret: &[u8]) -> DecodingKey {
    install();
    DecodingKey::from_secret(secret)
}

/// Lets the library compute with what is here. Whoever makes a key comes through here, so no token is looked at before.
fn install() {
    // It fails when it has been done before.
    let _ = PROVIDER.install_default();
}

/// An HMAC with its key, before any message.
struct Hs256(Hmac<Sha256>);

impl Hs256 {
    fn new<'k>(
        algorithm: Algorithm,
        family: AlgorithmFamily,
        secret: impl FnOnce() -> Result<&'k [u8]>,
    ) -> Result<Hs256> {
        if algorithm != Algorithm::HS256 || family != AlgorithmFamily::Hmac {
            return Err(ErrorKind::InvalidAlgorithm.into());
        }
        Hmac::new_from_slice(secret()?).map(Hs256).map_err(|_| ErrorKind::InvalidKeyFormat.into())
    }

    fn over(&self, message: &[u8]) -> Hmac<Sha256> {
        self.0.clone().chain_update(message)
    }
}

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        Ok(self.over(message).finalize().into_bytes().to_vec())
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        // In a time that does not depend on how much of it is right; a signature that is cut off is refused, too.
        self.over(message).verify_slice(signature).map_err(|_| Error::new())
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
        let signature = jsonwebtoken::crypto::sign(message, &encoding_key(key), Algorithm::HS256).expect("signs");
        URL_SAFE_NO_PAD.decode(signature).expect("base64url")
    }

    fn is_right(key: &[u8], message: &[u8], mac: &[u8]) -> bool {
        let signature = URL_SAFE_NO_PAD.encode(mac);
        jsonwebtoken::crypto::verify(&signature, message, &decoding_key(key), Algorithm::HS256).expect("an answer")
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
    }

    /// RFC 4231 sections 4.2, 4.3, 4.4, 4.7 and 4.8: short and long keys and messages, keys over a block.
    #[test]
    fn test_vectors_of_rfc_4231() {
        let cases: [(Vec<u8>, &[u8], &str); 5] = [
            (vec![0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
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
            assert_eq!(mac(&key, message), bytes(expected), "{}", String::from_utf8_lossy(message));
            assert!(is_right(&key, message, &bytes(expected)));
        }
    }

    /// RFC 7515 appendix A.1: a whole token, made by others.
    #[test]
    fn the_token_of_rfc_7515() {
        let key = URL_SAFE_NO_PAD
            .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
            .expect("base64url");
        let message = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                       eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = URL_SAFE_NO_PAD.decode("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk").expect("base64url");
        assert_eq!(mac(&key, message.as_bytes()), signature);
    }

    #[test]
    fn every_other_signature_is_refused() {
        let (key, message) = (b"a key of any length", b"a message");
        let right = mac(key, message);
        assert!(is_right(key, message, &right));
        for bit in 0..right.len() * 8 {
            let mut wrong = right.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_right(key, message, &wrong), "bit {bit}");
        }
        for length in 0..right.len() {
            assert!(!is_right(key, message, &right[..length]), "{length} bytes");
        }
        assert!(!is_right(key, message, &[&right[..], b"x"].concat()));
        assert!(!is_right(b"another key", message, &right) && !is_right(key, b"another", &right));
    }

    #[test]
    fn other_algorithms_and_keys_are_errors_and_no_panics() {
        for algorithm in [Algorithm::HS384, Algorithm::HS512, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
            assert!(jsonwebtoken::crypto::sign(b"m", &encoding_key(b"k"), algorithm).is_err(), "{algorithm:?}");
            assert!(jsonwebtoken::crypto::verify("AA", b"m", &decoding_key(b"k"), algorithm).is_err(), "{algorithm:?}");
        }
        let foreign = DecodingKey::from_rsa_raw_components(&[1; 256], &[1, 0, 1]);
        assert!(jsonwebtoken::crypto::verify("AA", b"m", &foreign, Algorithm::HS256).is_err());
    }
}

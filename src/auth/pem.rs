//! Public keys as text (PEM, RFC 7468), which tools such as OpenSSL write.

use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use spki::SubjectPublicKeyInfoRef;
use spki::der::asn1::{ObjectIdentifier, UintRef};
use spki::der::{Decode, Reader, SliceReader};

use super::{Algorithm, Key};
use crate::limits::KEYS_MAX;

/// RFC 8017 appendix A.1: rsaEncryption.
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// RFC 8017 appendix A.2.3: id-RSASSA-PSS, a key for nothing else.
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
/// RFC 5480 section 2.1.1: id-ecPublicKey, and its curve P-256.
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// RFC 8410 section 3: id-Ed25519.
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Reads all public keys of a text. A text of the environment may have `\n` where its lines end. A key of RSA is for RS256; for
/// PS256 when it says so itself.
///
/// # Errors
/// What is wrong, as text.
pub fn read_public_keys(text: &str) -> Result<Vec<Key>, String> {
    let text = text.replace("\\n", "\n");
    let mut keys = Vec::new();
    for der in SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes()) {
        let der = der.map_err(|_| "it is broken between the lines BEGIN and END".to_owned())?;
        keys.push(key_of(&der)?);
    }
    if keys.len() > KEYS_MAX {
        return Err(format!("it has {} keys; {KEYS_MAX} are the most that are taken", keys.len()));
    }
    if keys.is_empty() {
        return Err(if text.contains("PRIVATE KEY") {
            "it is a private key, which checks no tokens and should not be here: `openssl pkey -pubout` makes the public one"
        } else if text.contains("BEGIN CERTIFICATE") {
            "it is a certificate; `openssl x509 -pubkey -noout` takes the key out of it"
        } else if text.contains("BEGIN RSA PUBLIC KEY") {
            "it is in an older form; `openssl rsa -RSAPublicKey_in -pubout` makes the usual one (BEGIN PUBLIC KEY)"
        } else {
            "it has no public key in PEM (-----BEGIN PUBLIC KEY-----)"
        }
        .to_owned());
    }
    Ok(keys)
}

fn key_of(der: &[u8]) -> Result<Key, String> {
    let broken = || "it has a key that is none of RFC 5280".to_owned();
    let info = SubjectPublicKeyInfoRef::try_from(der).map_err(|_| broken())?;
    let bytes = info.subject_public_key.as_bytes().ok_or_else(broken)?;
    let key = match info.algorithm.oid {
        RSA | RSA_PSS => {
            let algorithm = if info.algorithm.oid == RSA { Algorithm::Rs256 } else { Algorithm::Ps256 };
            let (n, e) = rsa_numbers(bytes).map_err(|_| "it has an RSA key that is none".to_owned())?;
            Key::rsa(algorithm, None, n, e)
        }
        EC if info.algorithm.parameters_oid().is_ok_and(|curve| curve == P256) => Key::p256_point(None, bytes),
        ED25519 => Key::ed25519(None, bytes),
        other => {
            return Err(format!("it has a key of a kind ({other}) that is not known here: RSA, P-256 and Ed25519 are"));
        }
    };
    key.map_err(|fault| fault.to_string())
}

/// Modulus and exponent of an RSAPublicKey (RFC 8017 appendix A.1.1).
fn rsa_numbers(der: &[u8]) -> spki::der::Result<(&[u8], &[u8])> {
    let mut reader = SliceReader::new(der)?;
    let numbers =
        reader.sequence(|inner| Ok((UintRef::decode(inner)?.as_bytes(), UintRef::decode(inner)?.as_bytes())))?;
    reader.finish(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

    #[test]
    fn rfc_8410_section_10_1() {
        let keys = read_public_keys(ED25519_PEM).unwrap();
        assert_eq!(keys[0].algorithm(), Algorithm::EdDsa);
        let in_one_line = ED25519_PEM.replace('\n', "\\n");
        assert_eq!(read_public_keys(&in_one_line).unwrap(), keys);
        assert_eq!(read_public_keys(&format!("two keys\n{ED25519_PEM}{ED25519_PEM}")).unwrap().len(), 2);
    }

    #[test]
    fn what_is_no_public_key_is_named() {
        for (text, named) in [
            ("", "no public key"),
            ("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", "private key"),
            ("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "certificate"),
            ("-----BEGIN RSA PUBLIC KEY-----\nAA==\n-----END RSA PUBLIC KEY-----\n", "older form"),
            ("-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n", "RFC 5280"),
            ("-----BEGIN PUBLIC KEY-----\nAA", "broken"),
            // Ed448 of RFC 8410.
            (
                "-----BEGIN PUBLIC KEY-----\nMEMwBQYDK2VxAzoAX9dEm1m0Yf0s54fsYWrUajv2S+LN2zZKgOvlq+3QxLeRRPTgxHN7\n\
                 e2B5dR5bNnTzbmPLXwpfRXNA\n-----END PUBLIC KEY-----\n",
                "",
            ),
        ] {
            let error = read_public_keys(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}

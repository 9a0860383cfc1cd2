//! What shows that whoever asks the page for a token has seen the server's own terminal.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use crate::config::Secret;

/// What is signed: with it no key of the page is the signature of a token.
const PURPOSE: &[u8] = b"million-rps: tokens for the page";

fn key_of(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes())
}

/// The page's key: 43 characters that hold in a URL. It is the same for as long as the secret of the tokens is, so that an address
/// that somebody has kept outlives a restart.
pub fn page_key(secret: &Secret) -> String {
    URL_SAFE_NO_PAD.encode(hmac::sign(&key_of(secret), PURPOSE))
}

/// Whether this is the page's key. How long the answer takes does not tell how much of it is right.
pub fn is_page_key(secret: &Secret, given: &[u8]) -> bool {
    URL_SAFE_NO_PAD.decode(given).is_ok_and(|tag| hmac::verify(&key_of(secret), PURPOSE, &tag).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_belongs_to_the_secret() {
        let [one, other] =
            ["a secret of at least 32 characters", "another secret of over 32 characters"].map(Secret::new);
        let key = page_key(&one);
        assert_eq!(key.len(), 43);
        assert!(is_page_key(&one, key.as_bytes()));
        for wrong in ["", "1", &key[..42], &format!("{key}A"), &page_key(&other), "é"] {
            assert!(!is_page_key(&one, wrong.as_bytes()), "{wrong}");
        }
    }
}

//! Bearer tokens, good and bad.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use sha2::{Sha256, Sha384, Sha512};

/// The JWT_SECRET of the servers that the tests start.
pub const SECRET: &str = "the tests' own secret, long enough for HS256: 48";

/// The present moment, in seconds since the epoch, as tokens count.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs()
}

/// A good token of this user, for an hour.
pub fn token(sub: &str) -> String {
    token_of(&json!({ "sub": sub, "exp": now() + 3600 }))
}

/// A token with these claims, rightly signed.
pub fn token_of(claims: &Value) -> String {
    sign(&json!({ "alg": "HS256", "typ": "JWT" }), claims, Algorithm::HS256, SECRET.as_bytes())
}

/// A token with this header and these claims, signed with `algorithm` whatever the header says.
pub fn sign(header: &Value, claims: &Value, algorithm: Algorithm, secret: &[u8]) -> String {
    let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    let signature = match algorithm {
        Algorithm::HS256 => finish(Hmac::<Sha256>::new_from_slice(secret), &message),
        Algorithm::HS384 => finish(Hmac::<Sha384>::new_from_slice(secret), &message),
        Algorithm::HS512 => finish(Hmac::<Sha512>::new_from_slice(secret), &message),
        other => panic!("{other:?} is no HMAC"),
    };
    format!("{message}.{}", encode(signature))
}

fn finish<M: Mac>(keyed: Result<M, hmac::digest::InvalidLength>, message: &str) -> Vec<u8> {
    let mut mac = keyed.expect("a key may have any length");
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// base64url without padding, as in every part of a token.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

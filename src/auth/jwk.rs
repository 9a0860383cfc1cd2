//! Keys in JSON (RFC 7517).

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::{Algorithm, Key};
use crate::limits::KEYS_MAX;

/// Where a key set comes from, which decides whether it may hold secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetOrigin {
    /// A file of this machine.
    File,
    /// An address: whoever may ask there may read it.
    Address,
}

/// What was found in a key set.
#[derive(Debug, Default)]
pub struct ReadSet {
    /// The keys that tokens may be checked with.
    pub keys: Vec<Key>,
    /// Why each of the others is none of them.
    pub left_out: Vec<String>,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
    /// The private part; nobody should send it.
    d: Option<serde::de::IgnoredAny>,
}

/// Reads a key set. A key that is not for signatures, or of a kind that is not known here, is left out: RFC 7517 section 5 has
/// it so. A set without a single key that is for tokens is an error, since it would refuse everybody.
///
/// # Errors
/// What is wrong with the set, as a text without any key.
pub fn read_key_set(json: &[u8], origin: SetOrigin) -> Result<ReadSet, String> {
    let set: Set = serde_json::from_slice(json).map_err(|error| {
        format!(
            "it is no key set (a JSON object with an array `keys`): line {}, column {}",
            error.line(),
            error.column()
        )
    })?;
    if set.keys.len() > KEYS_MAX {
        return Err(format!("it has {} keys; {KEYS_MAX} are the most that are taken", set.keys.len()));
    }
    let mut read = ReadSet::default();
    for (number, value) in set.keys.into_iter().enumerate() {
        let name = value.get("kid").and_then(|kid| kid.as_str()).map(|kid| kid.chars().take(80).collect::<String>());
        let key = serde_json::from_value(value).map_err(|_| "it is no key of RFC 7517".to_owned());
        match key.and_then(|jwk| key_of(jwk, origin)) {
            Ok(key) => read.keys.push(key),
            Err(reason) => {
                let mut text = format!("key {}", number + 1);
                if let Some(name) = name {
                    let _ = write!(text, " ({name:?})");
                }
                read.left_out.push(format!("{text}: {reason}"));
            }
        }
    }
    match read.keys.is_empty() {
        true if read.left_out.is_empty() => Err("it has no keys".to_owned()),
        true => Err(format!("none of its keys is for tokens here: {}", read.left_out.join("; "))),
        false => Ok(read),
    }
}

fn key_of(jwk: Jwk, origin: SetOrigin) -> Result<Key, String> {
    if jwk.usage.as_deref().is_some_and(|usage| usage != "sig") {
        return Err("it is not for signatures (use)".to_owned());
    }
    if jwk.key_ops.as_ref().is_some_and(|operations| !operations.iter().any(|one| one == "verify")) {
        return Err("it is not for checking signatures (key_ops)".to_owned());
    }
    let algorithm = algorithm_of(&jwk)?;
    let id = jwk.kid.as_deref().map(Into::into);
    let key = match jwk.kty.as_str() {
        "oct" if origin == SetOrigin::Address => {
            return Err(
                "it is a secret that whoever asks the address is given: a key of HMAC belongs into a file".to_owned()
            );
        }
        "oct" => Key::hmac(algorithm, id, &bytes("k", jwk.k.as_deref())?),
        _ if jwk.d.is_some() => {
            return Err("it has its private part (d) with it: anybody who reads it can sign".to_owned());
        }
        "RSA" => Key::rsa(algorithm, id, &bytes("n", jwk.n.as_deref())?, &bytes("e", jwk.e.as_deref())?),
        "EC" => Key::p256(id, &bytes("x", jwk.x.as_deref())?, &bytes("y", jwk.y.as_deref())?),
        _okp => Key::ed25519(id, &bytes("x", jwk.x.as_deref())?),
    };
    key.map_err(|fault| fault.to_string())
}

/// The algorithm of a key: the one that it names, which has to be of its kind, or the only one of its kind. RSA without a name is
/// RS256, as issuers that leave `alg` out mean it. A secret without one is left out, as any of three might be meant.
fn algorithm_of(jwk: &Jwk) -> Result<Algorithm, String> {
    let of_kind: &[Algorithm] = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("oct", _) => &[Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512],
        ("RSA", _) => &[Algorithm::Rs256, Algorithm::Ps256],
        ("EC", Some("P-256")) => &[Algorithm::Es256],
        ("OKP", Some("Ed25519")) => &[Algorithm::EdDsa],
        _ => return Err("its kind (kty, crv) is not known here".to_owned()),
    };
    match jwk.alg.as_deref() {
        None if jwk.kty == "oct" => Err("it does not say its algorithm (alg)".to_owned()),
        None => Ok(of_kind[0]),
        // RFC 9864 gives Ed25519 a name of its own.
        Some("Ed25519") if of_kind == [Algorithm::EdDsa] => Ok(Algorithm::EdDsa),
        Some(name) => of_kind
            .iter()
            .copied()
            .find(|algorithm| algorithm.name() == name)
            .ok_or_else(|| "its algorithm (alg) is not known here, or not one of its kind".to_owned()),
    }
}

fn bytes(member: &str, text: Option<&str>) -> Result<Vec<u8>, String> {
    let text = text.ok_or_else(|| format!("its member {member} is missing"))?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("its member {member} is not base64url"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EC: &str = r#""kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;

    fn read(json: &str, origin: SetOrigin) -> Result<ReadSet, String> {
        read_key_set(json.as_bytes(), origin)
    }

    #[test]
    fn the_algorithm_is_the_keys_and_has_to_be_of_its_kind() {
        let ec = |more: &str| read(&format!(r#"{{"keys":[{{{EC}{more}}}]}}"#), SetOrigin::Address);
        assert_eq!(ec("").unwrap().keys[0].algorithm(), Algorithm::Es256);
        assert_eq!(ec(r#","kid":"a","use":"sig","key_ops":["verify"]"#).unwrap().keys[0].id(), Some("a"));
        for wrong in [
            r#","alg":"RS256""#,
            r#","alg":"HS256""#,
            r#","alg":"none""#,
            r#","use":"enc""#,
            r#","key_ops":["sign"]"#,
            r#","d":"AA""#,
            r#","kid":7"#,
        ] {
            let text = ec(wrong).unwrap_err();
            assert!(text.starts_with("none of its keys is for tokens here: key 1"), "{wrong}: {text}");
        }
        let n = URL_SAFE_NO_PAD.encode([0xff; 256]);
        let rsa = |alg: &str| format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAB"{alg}}}"#);
        let keys = [rsa(""), rsa(r#","alg":"PS256""#), rsa(r#","alg":"RSA-OAEP""#), "{}".into(), "7".into()].join(",");
        let set = read(&format!(r#"{{"keys":[{keys}],"other":1}}"#), SetOrigin::Address).unwrap();
        let algorithms: Vec<_> = set.keys.iter().map(Key::algorithm).collect();
        assert_eq!((algorithms, set.left_out.len()), (vec![Algorithm::Rs256, Algorithm::Ps256], 3));
    }

    #[test]
    fn secrets_come_from_files_alone_and_name_their_algorithm() {
        let secret = |alg: &str| {
            let key = URL_SAFE_NO_PAD.encode([b'k'; 64]);
            format!(r#"{{"keys":[{{"kty":"oct","k":"{key}"{alg}}}]}}"#)
        };
        for (name, algorithm) in [("HS256", Algorithm::Hs256), ("HS384", Algorithm::Hs384), ("HS512", Algorithm::Hs512)]
        {
            let json = secret(&format!(r#","alg":"{name}""#));
            assert_eq!(read(&json, SetOrigin::File).unwrap().keys[0].algorithm(), algorithm);
            let text = read(&json, SetOrigin::Address).unwrap_err();
            assert!(text.contains("belongs into a file") && !text.contains("a2tra"), "{text}");
        }
        assert!(read(&secret(""), SetOrigin::File).unwrap_err().contains("does not say its algorithm"));
        assert!(read(&secret(r#","alg":"RS256""#), SetOrigin::File).is_err());
    }

    #[test]
    fn what_is_no_key_set_is_an_error() {
        for json in ["", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[]}"#, "<html>", r#"{"keys":[],"keys":[]}"#] {
            assert!(read(json, SetOrigin::File).is_err(), "{json}");
        }
        let many = vec![format!("{{{EC}}}"); KEYS_MAX + 1].join(",");
        assert!(read(&format!(r#"{{"keys":[{many}]}}"#), SetOrigin::File).unwrap_err().contains("the most"));
    }
}

//! Tokens of several kinds of keys at once, and what somebody would try who has none of them (RFC 8725 section 2).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use crossbeam_channel::bounded;

use super::error::Claim;
use super::*;
use crate::config::{Auth, Secret};
use crate::limits::{FAILED_CHECKS_PER_CONNECTION_MAX, KEY_FETCH_ASKED_INTERVAL_SEC, TOKEN_MAX_BYTES};

const NOW: UnixSeconds = 1_800_000_000;
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const RSA: (&str, &str) =
    (include_str!("../../tests/harness/keys/rsa.pem"), include_str!("../../tests/harness/keys/rsa.pub.pem"));
const EC: (&str, &str) =
    (include_str!("../../tests/harness/keys/ec.pem"), include_str!("../../tests/harness/keys/ec.pub.pem"));
const ED: (&str, &str) =
    (include_str!("../../tests/harness/keys/ed.pem"), include_str!("../../tests/harness/keys/ed.pub.pem"));

/// A signer of each algorithm of a public key, and the key that its tokens are checked with.
fn signers() -> Vec<(SigningKey, Key)> {
    let public = |pem| read_public_keys(pem).expect("a public key").remove(0);
    let private = |pem: &str, algorithm| SigningKey::from_pem(pem.as_bytes(), algorithm).expect("a private key");
    vec![
        (private(RSA.0, None), public(RSA.1)),
        (private(RSA.0, Some(Algorithm::Ps256)), rsa_for_pss()),
        (private(EC.0, None), public(EC.1)),
        (private(ED.0, None), public(ED.1)),
    ]
}

/// The RSA key once more, as a key set would say that it is for PS256.
pub(super) fn rsa_for_pss() -> Key {
    let json = format!(r#"{{"keys":[{}]}}"#, rsa_jwk(r#","alg":"PS256""#));
    read_key_set(json.as_bytes(), SetOrigin::Address).expect("a key set").keys.remove(0)
}

fn rsa_jwk(more: &str) -> String {
    // The modulus stands behind 33 bytes of the key's info, and before 5 of its exponent.
    let der = der_of(RSA.1);
    let n = URL_SAFE_NO_PAD.encode(&der[33..der.len() - 5]);
    format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAB"{more}}}"#)
}

fn der_of(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(body).expect("base64")
}

fn all() -> Verifier {
    let keys = signers().into_iter().map(|(_, key)| key).chain([Key::from_secret(&Secret::new(SECRET))]);
    Verifier::new(Arc::new(KeySet::new(keys).expect("few keys")), &Auth::default())
}

fn with_keys(keys: impl IntoIterator<Item = Key>) -> Verifier {
    Verifier::new(Arc::new(KeySet::new(keys).expect("few keys")), &Auth::default())
}

fn minted(key: &SigningKey, id: Option<&str>) -> String {
    mint_with(key, id, &Auth::default(), "alice", Duration::from_secs(60), NOW).expect("a token")
}

/// A token with this header and these claims, rightly signed.
fn signed(key: &SigningKey, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes()).expect("signed"));
    format!("{message}.{signature}")
}

fn claims() -> String {
    format!(r#"{{"sub":"alice","exp":{}}}"#, NOW + 60)
}

/// What becomes of a token on a connection of its own.
fn verify(verifier: &mut Verifier, token: &str) -> Result<String, AuthError> {
    verify_on(verifier, token, NOW, &FailedChecks::default())
}

fn verify_on(
    verifier: &mut Verifier,
    token: &str,
    now: UnixSeconds,
    connection: &FailedChecks,
) -> Result<String, AuthError> {
    verifier.verify(Some(format!("Bearer {token}").as_bytes()), now, connection).map(|user| user.to_string())
}

#[test]
fn each_algorithm_is_taken_with_its_key_and_with_no_other() {
    for (signer, own) in signers() {
        let token = minted(&signer, None);
        assert_eq!(verify(&mut all(), &token), Ok("alice".to_owned()), "{}", signer.algorithm());
        assert_eq!(verify(&mut with_keys([own]), &token), Ok("alice".to_owned()));
        for (other, key) in signers().into_iter().filter(|(other, _)| other.algorithm() != signer.algorithm()) {
            let refused = verify(&mut with_keys([key]), &token);
            assert_eq!(refused, Err(AuthError::WrongAlgorithm), "{} with {}", signer.algorithm(), other.algorithm());
        }
    }
}

#[test]
fn no_token_chooses_the_algorithm() {
    let signers = signers().into_iter().map(|(signer, _)| signer);
    for signer in signers.chain([SigningKey::from_secret(&Secret::new(SECRET))]) {
        for name in
            ["none", "None", "", "HS256", "HS384", "HS512", "RS256", "RS384", "PS256", "ES256", "ES384", "EdDSA"]
        {
            let is_own = name == signer.algorithm().name();
            let token = signed(&signer, &format!(r#"{{"alg":"{name}"}}"#), &claims());
            assert_eq!(verify(&mut all(), &token).is_ok(), is_own, "{} as {name}", signer.algorithm());
            let (message, _) = token.rsplit_once('.').expect("three parts");
            assert!(verify(&mut all(), &format!("{message}.")).is_err(), "{name} without signature");
        }
    }
}

#[test]
fn a_public_key_is_no_secret() {
    for (pem, key) in [(RSA.1, 0), (EC.1, 2), (ED.1, 3)] {
        let der = der_of(pem);
        let jwk = rsa_jwk("");
        let texts: [&[u8]; 6] =
            [pem.as_bytes(), pem.trim_end().as_bytes(), &der, &der[der.len() - 32..], jwk.as_bytes(), b""];
        for secret in texts {
            let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
            let message =
                format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(claims()));
            let mac = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&secret, message.as_bytes()));
            let token = format!("{message}.{mac}");
            let mut without_secret = with_keys([signers().remove(key).1]);
            assert_eq!(verify(&mut without_secret, &token), Err(AuthError::WrongAlgorithm));
            assert_eq!(verify(&mut all(), &token), Err(AuthError::WrongSignature));
        }
    }
}

#[test]
fn hs384_and_hs512_are_taken_only_with_a_key_that_says_so() {
    let json =
        format!(r#"{{"keys":[{{"kty":"oct","alg":"HS512","kid":"big","k":"{}"}}]}}"#, URL_SAFE_NO_PAD.encode(SECRET));
    let token = |algorithm, name| {
        let message = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{name}"}}"#)),
            URL_SAFE_NO_PAD.encode(claims())
        );
        let mac = ring::hmac::sign(&ring::hmac::Key::new(algorithm, SECRET.as_bytes()), message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac))
    };
    let (hs384, hs512) = (token(ring::hmac::HMAC_SHA384, "HS384"), token(ring::hmac::HMAC_SHA512, "HS512"));
    let keys = read_key_set(json.as_bytes(), SetOrigin::File).expect("a key set").keys;
    let mut verifier = with_keys(keys);
    assert!(verify(&mut verifier, &hs512).is_ok());
    assert_eq!(verify(&mut verifier, &hs384), Err(AuthError::WrongAlgorithm));
    let mut plain = Verifier::of_secret(&Secret::new(SECRET), &Auth::default());
    for token in [hs384, hs512] {
        assert_eq!(verify(&mut plain, &token), Err(AuthError::WrongHeader));
    }
}

#[test]
fn every_change_of_a_good_token_is_refused() {
    for (signer, own) in signers() {
        let token = minted(&signer, Some("a"));
        let mut verifier = with_keys([own]);
        assert!(verify(&mut verifier, &token).is_ok());
        let step = if signer.algorithm() == Algorithm::EdDsa { 1 } else { 7 };
        for place in (0..token.len()).step_by(step) {
            for replacement in *b"AQ.-=+/ " {
                let mut bytes = token.clone().into_bytes();
                if std::mem::replace(&mut bytes[place], replacement) == replacement {
                    continue;
                }
                let changed = String::from_utf8(bytes).expect("ASCII");
                assert!(verify(&mut verifier, &changed).is_err(), "{}: {changed}", signer.algorithm());
            }
        }
        for length in [0, 1, token.len() / 2, token.len() - 1] {
            assert!(verify(&mut verifier, &token[..length]).is_err());
        }
        assert!(verify(&mut verifier, &format!("{token}A")).is_err());
        let long = format!("{token}{}", "A".repeat(TOKEN_MAX_BYTES));
        assert_eq!(verify(&mut verifier, &long), Err(AuthError::TooLong));
    }
}

#[test]
fn a_name_of_a_key_is_compared_and_nothing_else() {
    let (signer, _) = signers().remove(0);
    let named = |id: &str| {
        let json = format!(r#"{{"keys":[{}]}}"#, rsa_jwk(&format!(r#","kid":"{id}""#)));
        read_key_set(json.as_bytes(), SetOrigin::File).expect("a key set").keys
    };
    let mut verifier = with_keys(named("2026"));
    assert!(verify(&mut verifier, &minted(&signer, Some("2026"))).is_ok());
    assert!(verify(&mut verifier, &minted(&signer, None)).is_ok(), "by fit");
    for id in [
        "",
        "2027",
        "../../../../dev/null",
        "/proc/self/environ",
        "' UNION SELECT 'k' --",
        "2026' OR '1'='1",
        "2026\u{0}",
        "|id",
        "https://evil.example/keys",
    ] {
        assert_eq!(verify(&mut verifier, &minted(&signer, Some(id))), Err(AuthError::UnknownKey), "{id}");
    }
    for wrong in
        [r#"{"alg":"RS256","kid":7}"#, r#"{"alg":"RS256","kid":["2026"]}"#, r#"{"alg":"RS256","kid":"a","kid":"2026"}"#]
    {
        assert_eq!(verify(&mut verifier, &signed(&signer, wrong, &claims())), Err(AuthError::WrongHeader), "{wrong}");
    }
    // A key without a name was never agreed on a name: any will do.
    let mut nameless = with_keys([signers().remove(0).1]);
    assert!(verify(&mut nameless, &minted(&signer, Some("whatever"))).is_ok());
}

#[test]
fn keys_and_addresses_in_a_token_are_ignored() {
    let (own, key) = signers().remove(2);
    let (stranger, _) = signers().remove(0);
    let jwk = rsa_jwk("");
    let mut verifier = with_keys([key]);
    for more in [
        format!(r#""jwk":{jwk}"#),
        r#""jku":"https://evil.example/keys""#.to_owned(),
        r#""x5u":"https://evil.example/certificate""#.to_owned(),
        format!(r#""x5c":["{}"]"#, STANDARD.encode(der_of(RSA.1))),
    ] {
        let forged = signed(&stranger, &format!(r#"{{"alg":"RS256",{more}}}"#), &claims());
        assert_eq!(verify(&mut verifier, &forged), Err(AuthError::WrongAlgorithm), "{more}");
        let honest = signed(&own, &format!(r#"{{"alg":"ES256",{more}}}"#), &claims());
        assert_eq!(verify(&mut verifier, &honest), Ok("alice".to_owned()), "{more}");
    }
    for extension in [
        r#""crit":["exp"]"#,
        r#""crit":["b64"],"b64":false"#,
        r#""crit":[]"#,
        r#""crit":null"#,
        r#""crit":{}"#,
        r#""crit":false"#,
        r#""b64":true"#,
        r#""b64":null"#,
        r#""typ":"logout+jwt""#,
    ] {
        let token = signed(&own, &format!(r#"{{"alg":"ES256",{extension}}}"#), &claims());
        assert_eq!(verify(&mut verifier, &token), Err(AuthError::Unsupported), "{extension}");
    }
}

#[test]
fn tokens_of_a_key_that_is_gone_are_forgotten_at_once() {
    let (signer, key) = signers().remove(3);
    let secret = Secret::new(SECRET);
    let mut verifier = all();
    let (by_key, by_secret) = (minted(&signer, None), minted(&SigningKey::from_secret(&secret), None));
    assert!(verify(&mut verifier, &by_key).is_ok() && verify(&mut verifier, &by_secret).is_ok());
    verifier.use_keys(Arc::new(KeySet::from(Key::from_secret(&secret))));
    assert_eq!(verify(&mut verifier, &by_key), Err(AuthError::WrongHeader), "also from the cache");
    assert!(verify(&mut verifier, &by_secret).is_ok());
    verifier.use_keys(Arc::new(KeySet::from(key)));
    assert!(verify(&mut verifier, &by_key).is_ok());
    assert_eq!(verify(&mut verifier, &by_secret), Err(AuthError::WrongAlgorithm));
}

#[test]
fn a_connection_that_brings_bad_tokens_waits_and_no_other() {
    let (signer, key) = signers().remove(0);
    let mut verifier = with_keys([key]);
    let good = minted(&signer, None);
    let bad = |number: u32| {
        let (message, signature) = good.rsplit_once('.').expect("three parts");
        format!("{message}.{number:04}{}", &signature[4..])
    };
    let connection = FailedChecks::default();
    for number in 0..FAILED_CHECKS_PER_CONNECTION_MAX {
        assert_eq!(verify_on(&mut verifier, &bad(number), NOW, &connection), Err(AuthError::WrongSignature));
    }
    assert_eq!(verify_on(&mut verifier, &bad(99), NOW, &connection), Err(AuthError::TooManyFailed));
    assert_eq!(verify_on(&mut verifier, &good, NOW, &connection), Err(AuthError::TooManyFailed), "unseen");
    assert!(verify(&mut verifier, &good).is_ok(), "another connection");
    assert!(verify_on(&mut verifier, &good, NOW, &connection).is_ok(), "known by now, which costs nothing");
    assert_eq!(verify_on(&mut verifier, &bad(99), NOW + 1, &connection), Err(AuthError::WrongSignature));
    // A wrong MAC costs too little to be counted.
    let mut plain = Verifier::of_secret(&Secret::new(SECRET), &Auth::default());
    let foreign = minted(&SigningKey::from_secret(&Secret::new("another")), None);
    for _ in 0..3 * FAILED_CHECKS_PER_CONNECTION_MAX {
        assert_eq!(verify_on(&mut plain, &foreign, NOW, &connection), Err(AuthError::WrongSignature));
    }
}

#[test]
fn tokens_that_are_signed_and_refused_all_the_same_count_too() {
    let settings = Auth { issuer: Some("here".to_owned()), audiences: vec!["todos".to_owned()], ..Auth::default() };
    let exp = NOW + 60;
    for (claims, why) in [
        (format!(r#"{{"sub":"a","iss":"here","aud":"todos","exp":{NOW}}}"#), AuthError::Expired),
        (format!(r#"{{"sub":"a","iss":"here","aud":"todos","exp":{exp},"nbf":{exp}}}"#), AuthError::NotYetValid),
        (format!(r#"{{"sub":"a","iss":"here","aud":"mail","exp":{exp}}}"#), AuthError::WrongAudience),
        (format!(r#"{{"sub":"a","iss":"there","aud":"todos","exp":{exp}}}"#), AuthError::WrongIssuer),
        (format!(r#"{{"iss":"here","aud":"todos","exp":{exp}}}"#), AuthError::InvalidSubject),
        ("[]".to_owned(), AuthError::MalformedClaims),
    ] {
        let (signer, key) = signers().remove(2);
        let token = signed(&signer, r#"{"alg":"ES256"}"#, &claims);
        let mut verifier = Verifier::new(Arc::new(KeySet::from(key)), &settings);
        let connection = FailedChecks::default();
        for _ in 0..FAILED_CHECKS_PER_CONNECTION_MAX {
            assert_eq!(verify_on(&mut verifier, &token, NOW, &connection), Err(why), "{claims}");
        }
        assert_eq!(verify_on(&mut verifier, &token, NOW, &connection), Err(AuthError::TooManyFailed), "{claims}");
        assert_eq!(verify(&mut verifier, &token), Err(why), "another connection");
    }
}

#[test]
fn an_unknown_key_is_asked_for_and_not_refused_until_the_issuer_has_answered() {
    let (signer, _) = signers().remove(0);
    let (other, _) = signers().remove(2);
    let (asks, wishes) = bounded(1);
    let secret = Secret::new(SECRET);
    let set = |fetch| {
        let json = format!(r#"{{"keys":[{}]}}"#, rsa_jwk(r#","kid":"old""#));
        let keys = match fetch {
            Fetch::Awaited => Vec::new(),
            _ => read_key_set(json.as_bytes(), SetOrigin::Address).expect("a key set").keys,
        };
        Arc::new(KeySet::new(keys.into_iter().chain([Key::from_secret(&secret)])).expect("few keys").with_fetch(fetch))
    };
    let mut verifier = Verifier::new(set(Fetch::Awaited), &Auth::default()).asking(Some(asks));
    let (old, new) = (minted(&signer, Some("old")), minted(&other, Some("new")));
    assert_eq!(verify(&mut verifier, &old), Err(AuthError::KeysAwaited));
    assert!(verify(&mut verifier, &minted(&SigningKey::from_secret(&secret), None)).is_ok(), "needs no issuer");
    verifier.use_keys(set(Fetch::At(NOW)));
    assert!(verify(&mut verifier, &old).is_ok());
    assert_eq!(wishes.try_iter().count(), 1);
    let connection = FailedChecks::default();
    let mut at = |now| {
        let token =
            mint_with(&other, Some("new"), &Auth::default(), "a", Duration::from_secs(90_000), NOW).expect("made");
        verify_on(&mut verifier, &token, now, &connection)
    };
    assert_eq!(at(NOW), Err(AuthError::WrongAlgorithm), "the issuer has been asked just now");
    for _ in 0..1000 {
        assert_eq!(at(NOW + KEY_FETCH_ASKED_INTERVAL_SEC), Err(AuthError::KeysAwaited));
    }
    assert_eq!(wishes.try_iter().count(), 1, "however many such tokens come");
    assert_eq!(at(NOW + 86_400), Err(AuthError::KeysAwaited), "the issuer is away: nobody knows whether it is good");
    assert_eq!(at(NOW - 86_400), Err(AuthError::KeysAwaited), "the clock was set back");
    let _ = new;
}

#[test]
fn claims_are_as_strict_with_any_key() {
    let (signer, key) = signers().remove(3);
    let mut verifier = with_keys([key]);
    let mut with = |claims: &str| verify(&mut verifier, &signed(&signer, r#"{"alg":"EdDSA"}"#, claims));
    assert_eq!(with(r#"{"sub":"a","exp":1e300}"#), Ok("a".to_owned()));
    for (claims, error) in [
        (r#"{"sub":"a","exp":"1900000000"}"#, AuthError::MalformedClaim(Claim::ExpiresAt)),
        (r#"{"sub":"a","exp":1900000000,"exp":1900000001}"#, AuthError::RepeatedClaim(Claim::ExpiresAt)),
        (r#"{"sub":"a","exp":1799999999.9}"#, AuthError::Expired),
        (r#"{"sub":"a","exp":1e999}"#, AuthError::MalformedClaims),
        (r#"["a",1900000000]"#, AuthError::MalformedClaims),
        (r#"{"sub":"a","exp":1900000000} "x""#, AuthError::MalformedClaims),
    ] {
        assert_eq!(with(claims), Err(error), "{claims}");
    }
}

#[test]
fn audiences_users_and_scopes_are_those_of_the_settings() {
    let settings = Auth {
        audiences: vec!["todos".to_owned(), "lists".to_owned()],
        user_claim: "/realm/user".to_owned(),
        write_scope: Some("todos:write".to_owned()),
        ..Auth::default()
    };
    let secret = Secret::new(SECRET);
    let signer = SigningKey::from_secret(&secret);
    let mut verifier = Verifier::of_secret(&secret, &settings);
    let mut with = |more: &str| {
        let claims = format!(r#"{{"sub":"s","exp":{},"realm":{{"user":"anna"}}{more}}}"#, NOW + 60);
        verify(&mut verifier, &signed(&signer, r#"{"alg":"HS256"}"#, &claims))
    };
    for good in [
        r#","aud":"todos","scope":"openid todos:write""#,
        r#","aud":["x","lists"],"scp":["todos:write"]"#,
        r#","aud":"lists","scp":"todos:write","scope":"""#,
    ] {
        assert_eq!(with(good), Ok("anna".to_owned()), "{good}");
    }
    for (bad, error) in [
        (r#","aud":"todo","scope":"todos:write""#, AuthError::WrongAudience),
        (r#","aud":"todos,lists","scope":"todos:write""#, AuthError::WrongAudience),
        (r#","aud":"todos""#, AuthError::MissingScope),
        (r#","aud":"todos","scope":"todos:writes todos""#, AuthError::MissingScope),
        (r#","aud":"todos","scp":["todos:write todos:read"]"#, AuthError::MissingScope),
        (r#","aud":"todos","scope":["todos:write"]"#, AuthError::MalformedClaim(Claim::Scope)),
    ] {
        assert_eq!(with(bad), Err(error), "{bad}");
        assert_eq!(with(bad), Err(error), "{bad} remembered");
    }
    let own = mint(&secret, &settings, "anna", Duration::from_secs(60), NOW).expect("a token");
    assert_eq!(verify(&mut verifier, &own), Ok("anna".to_owned()), "what is made here is good here");
    let nobody = signed(&signer, r#"{"alg":"HS256"}"#, &claims());
    assert_eq!(verify(&mut verifier, &nobody), Err(AuthError::InvalidUser));
}

#[test]
fn keys_in_the_form_of_openssl_are_read() {
    let algorithm = |pem| read_public_keys(pem).expect("a public key")[0].algorithm();
    assert_eq!(algorithm(RSA.1), Algorithm::Rs256);
    assert_eq!(algorithm(include_str!("../../tests/harness/keys/pss.pub.pem")), Algorithm::Ps256);
    assert_eq!((algorithm(EC.1), algorithm(ED.1)), (Algorithm::Es256, Algorithm::EdDsa));
    assert!(read_public_keys(RSA.0).unwrap_err().contains("private key"));
    assert!(matches!(SigningKey::from_pem(RSA.1.as_bytes(), None), Err(SigningKeyError::NoKey)));
    let of_rsa = SigningKey::from_pem(RSA.0.as_bytes(), Some(Algorithm::Es256));
    assert!(matches!(of_rsa, Err(SigningKeyError::OtherAlgorithm(Algorithm::Es256))));
}

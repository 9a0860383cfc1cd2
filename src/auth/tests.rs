//! Tokens made by hand, not by the library that reads them. `key.rs` holds the MAC itself against vectors of others.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use sha2::{Sha256, Sha384};

use super::error::Claim;
use super::*;
use crate::config::{Auth, Secret};
use crate::limits::{TOKEN_MAX_BYTES, USER_ID_MAX_BYTES};

const KEY: &str = "0123456789abcdef0123456789abcdef";
const NOW: UnixSeconds = 1_800_000_000;
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

fn settings() -> Auth {
    Auth::default()
}

fn verifier() -> Verifier {
    Verifier::of_secret(&Secret::new(KEY), &settings())
}

fn sign(key: &str, message: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn signed(message: String) -> String {
    let signature = URL_SAFE_NO_PAD.encode(sign(KEY, &message));
    format!("{message}.{signature}")
}

fn token(header: &str, claims: &str) -> String {
    signed(format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims)))
}

/// A token for alice with these claims besides, and an expiry in a minute.
fn alice(more: &str) -> String {
    token(HEADER, &format!(r#"{{"sub":"alice","exp":{}{more}}}"#, NOW + 60))
}

fn verify_with(verifier: &mut Verifier, token: &str, now: UnixSeconds) -> Result<String, AuthError> {
    verifier
        .verify(Some(format!("Bearer {token}").as_bytes()), now, &FailedChecks::default())
        .map(|user| user.to_string())
}

fn verify(token: &str) -> Result<String, AuthError> {
    verify_with(&mut verifier(), token, NOW)
}

#[test]
fn a_token_made_by_hand_names_its_user() {
    assert_eq!(verify(&alice("")), Ok("alice".to_owned()));
    assert_eq!(verify(&alice(r#","nbf":1,"iat":1,"iss":"x","aud":["y"],"roles":{"a":[1]}"#)), Ok("alice".to_owned()));
}

#[test]
fn the_example_of_rfc_7515_appendix_a_1_has_the_signature_that_is_printed_there() {
    // The key is binary there; ours are texts. So this checks the hand-made signing that the other tests rest on.
    let key = URL_SAFE_NO_PAD
        .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
        .unwrap();
    let message = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                   eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(message.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    assert_eq!(signature, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
}

#[test]
fn the_field_is_bearer_and_one_token() {
    let token = alice("");
    let mut verifier = verifier();
    let mut field = |value: String| {
        verifier.verify(Some(value.as_bytes()), NOW, &FailedChecks::default()).map(|user| user.to_string())
    };
    for good in ["Bearer", "bearer", "BEARER", "bEaReR", "Bearer  "] {
        assert_eq!(field(format!("{good} {token}")), Ok("alice".to_owned()), "{good}");
    }
    for (value, error) in [
        (String::new(), AuthError::Missing),
        ("Basic YTpi".to_owned(), AuthError::Missing),
        (token.clone(), AuthError::Missing),
        (format!("Bearer{token}"), AuthError::Missing),
        (format!("Bearer\t{token}"), AuthError::Missing),
        (format!("Bearers {token}"), AuthError::Missing),
        ("Bearer".to_owned(), AuthError::Malformed),
        ("Bearer ".to_owned(), AuthError::Malformed),
        (format!("Bearer {token} {token}"), AuthError::Malformed),
        (format!("Bearer {token},{token}"), AuthError::Malformed),
        (format!("Bearer {token} "), AuthError::Malformed),
        (format!("Bearer \"{token}\""), AuthError::Malformed),
        (format!("Bearer {token}\u{e9}"), AuthError::Malformed),
        (format!("Bearer {}", "a".repeat(TOKEN_MAX_BYTES + 1)), AuthError::TooLong),
        (format!("Bearer {}", "a".repeat(TOKEN_MAX_BYTES)), AuthError::Malformed),
    ] {
        assert_eq!(field(value.clone()), Err(error), "{value}");
    }
    assert_eq!(verifier.verify(None, NOW, &FailedChecks::default()), Err(AuthError::Missing));
}

#[test]
fn every_bit_of_the_signature_counts() {
    let token = alice("");
    let (message, _) = token.rsplit_once('.').unwrap();
    let signature = sign(KEY, message);
    let mut verifier = verifier();
    // The good token is in the cache while the bad ones are tried.
    assert!(verify_with(&mut verifier, &token, NOW).is_ok());
    for bit in 0..signature.len() * 8 {
        let mut wrong = signature.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        let wrong = format!("{message}.{}", URL_SAFE_NO_PAD.encode(wrong));
        assert_eq!(verify_with(&mut verifier, &wrong, NOW), Err(AuthError::WrongSignature), "bit {bit}");
    }
    for length in 0..signature.len() {
        let wrong = format!("{message}.{}", URL_SAFE_NO_PAD.encode(&signature[..length]));
        assert_eq!(verify_with(&mut verifier, &wrong, NOW), Err(AuthError::WrongSignature), "{length} bytes");
    }
    let longer = format!("{message}.{}", URL_SAFE_NO_PAD.encode([&signature[..], &[0]].concat()));
    assert_eq!(verify_with(&mut verifier, &longer, NOW), Err(AuthError::WrongSignature));
    let other_key = URL_SAFE_NO_PAD.encode(sign("another-key-another-key-another-key", message));
    assert_eq!(verify_with(&mut verifier, &format!("{message}.{other_key}"), NOW), Err(AuthError::WrongSignature));
}

#[test]
fn no_other_spelling_of_a_valid_token_is_valid() {
    let token = alice("");
    let mut verifier = verifier();
    assert!(verify_with(&mut verifier, &token, NOW).is_ok());
    for place in 0..token.len() {
        for replacement in *b"AQgw.-_=+/ " {
            let mut bytes = token.clone().into_bytes();
            if bytes[place] == replacement {
                continue;
            }
            bytes[place] = replacement;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(verify_with(&mut verifier, &changed, NOW).is_err(), "{changed}");
        }
    }
}

#[test]
fn other_shapes_are_refused() {
    let token = alice("");
    let [header, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("not three parts") };
    let padded = |text: &str| URL_SAFE.encode(URL_SAFE_NO_PAD.decode(text).unwrap());
    for shape in [
        format!("{header}.{claims}"),
        format!("{header}.{claims}."),
        format!("{header}..{signature}"),
        format!(".{claims}.{signature}"),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{signature}"),
        format!("{header}.{claims}.{signature}.{signature}.{signature}"),
        format!("{header}.{claims}.{}", padded(signature)),
        signed(format!("{}.{claims}", padded(&format!("{header}AA")))),
        signed(format!("{header}.{claims}=")),
        signed(format!("{header}.{claims}A")),
        signed(format!("{header}.{claims}.{claims}")),
        "..".to_owned(),
        ".".to_owned(),
    ] {
        assert!(verify(&shape).is_err(), "{shape}");
    }
}

#[test]
fn only_hs256_is_taken_whatever_the_header_says() {
    let claims = format!(r#"{{"sub":"alice","exp":{}}}"#, NOW + 60);
    for algorithm in
        ["none", "None", "NONE", "", "hs256", "HS384", "HS512", "RS256", "ES256", "PS256", "EdDSA", "HS256 "]
    {
        let header = format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#);
        assert_eq!(verify(&token(&header, &claims)), Err(AuthError::WrongHeader), "{algorithm}");
        let unsigned = format!("{}.{}.", URL_SAFE_NO_PAD.encode(&header), URL_SAFE_NO_PAD.encode(&claims));
        assert_eq!(verify(&unsigned), Err(AuthError::WrongHeader), "{algorithm}");
    }
    for header in ["{}", "[]", "null", "", "HS256", r#"{"alg":null}"#, r#"{"alg":["HS256"]}"#, r#"{"alg":256}"#] {
        assert_eq!(verify(&token(header, &claims)), Err(AuthError::WrongHeader), "{header}");
    }
    let doubled = r#"{"alg":"HS256","alg":"none"}"#;
    assert_eq!(verify(&token(doubled, &claims)), Err(AuthError::WrongHeader));
    // A token that says HS384 and is signed so, with the right key.
    let message =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS384"}"#), URL_SAFE_NO_PAD.encode(claims.as_bytes()));
    let mut mac = Hmac::<Sha384>::new_from_slice(KEY.as_bytes()).unwrap();
    mac.update(message.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    assert_eq!(verify(&format!("{message}.{signature}")), Err(AuthError::WrongHeader));
}

#[test]
fn kinds_and_extensions_that_are_not_ours_are_refused() {
    let claims = format!(r#"{{"sub":"alice","exp":{}}}"#, NOW + 60);
    let with = |more: &str| verify(&token(&format!(r#"{{"alg":"HS256"{more}}}"#), &claims));
    for good in ["", r#","typ":"JWT""#, r#","typ":"jwt""#, r#","typ":"at+jwt""#, r#","typ":"application/at+jwt""#] {
        assert_eq!(with(good), Ok("alice".to_owned()), "{good}");
    }
    assert_eq!(with(r#","kid":"k1","cty":"JWT","other":{"a":1}"#), Ok("alice".to_owned()));
    for bad in [
        r#","typ":"""#,
        r#","typ":"logout+jwt""#,
        r#","typ":"dpop+jwt""#,
        r#","crit":["exp"]"#,
        r#","crit":["b64"],"b64":true"#,
        r#","crit":[]"#,
        r#","crit":null"#,
        r#","crit":"exp""#,
        r#","b64":false"#,
    ] {
        assert_eq!(with(bad), Err(AuthError::Unsupported), "{bad}");
    }
    assert_eq!(with(r#","typ":7"#), Err(AuthError::WrongHeader));
}

#[test]
fn dates_are_checked_to_the_second() {
    let until = |exp: UnixSeconds| verify(&token(HEADER, &format!(r#"{{"sub":"alice","exp":{exp}}}"#)));
    assert!(until(NOW + 1).is_ok());
    assert_eq!(until(NOW), Err(AuthError::Expired));
    assert_eq!(until(-1), Err(AuthError::Expired));
    assert_eq!(verify(&token(HEADER, r#"{"sub":"alice"}"#)), Err(AuthError::MissingExpiry));
    let from = |nbf: UnixSeconds| verify(&alice(&format!(r#","nbf":{nbf}"#)));
    assert!(from(NOW).is_ok());
    assert_eq!(from(NOW + 1), Err(AuthError::NotYetValid));
    let with_exp = |exp: String| verify(&token(HEADER, &format!(r#"{{"sub":"alice","exp":{exp}}}"#)));
    assert!(with_exp(format!("{}.5", NOW + 1)).is_ok());
    assert_eq!(with_exp(format!("{NOW}.999")), Err(AuthError::Expired));
    assert!(with_exp("99999999999999999999999999".to_owned()).is_ok());
    assert!(with_exp("1e300".to_owned()).is_ok());
    for wrong in ["\"1900000000\"", "true", "[1900000000]", "{}"] {
        assert_eq!(with_exp(wrong.to_owned()), Err(AuthError::MalformedClaim(Claim::ExpiresAt)), "{wrong}");
    }
    assert_eq!(with_exp("null".to_owned()), Err(AuthError::MissingExpiry));
    for wrong in ["1e999", "0x7fffffff", "NaN"] {
        assert_eq!(with_exp(wrong.to_owned()), Err(AuthError::MalformedClaims), "{wrong}");
    }
}

#[test]
fn leeway_widens_both_dates() {
    let settings = Auth { leeway: Duration::from_secs(30), ..settings() };
    let mut verifier = Verifier::of_secret(&Secret::new(KEY), &settings);
    let token = token(HEADER, &format!(r#"{{"sub":"alice","nbf":{NOW},"exp":{}}}"#, NOW + 60));
    let mut at = |now| verify_with(&mut verifier, &token, now).err();
    assert_eq!(at(NOW - 31), Some(AuthError::NotYetValid));
    assert_eq!(at(NOW - 30), None);
    assert_eq!(at(NOW + 89), None);
    assert_eq!(at(NOW + 90), Some(AuthError::Expired));
}

#[test]
fn a_cached_token_is_checked_for_its_dates_on_every_use() {
    let mut verifier = verifier();
    let token = alice(&format!(r#","nbf":{NOW}"#));
    assert_eq!(verify_with(&mut verifier, &token, NOW), Ok("alice".to_owned()));
    assert_eq!(verify_with(&mut verifier, &token, NOW + 59), Ok("alice".to_owned()));
    assert_eq!(verify_with(&mut verifier, &token, NOW + 60), Err(AuthError::Expired));
    // The clock was set back before the token's nbf: the cached entry is checked for it too.
    assert_eq!(verify_with(&mut verifier, &token, NOW - 1), Err(AuthError::NotYetValid));
    assert_eq!(verify_with(&mut verifier, &token, NOW), Ok("alice".to_owned()));
}

#[test]
fn the_second_use_shares_the_first_ones_user() {
    let mut verifier = verifier();
    let field = format!("Bearer {}", alice(""));
    let first = verifier.verify(Some(field.as_bytes()), NOW, &FailedChecks::default()).unwrap();
    let second = verifier.verify(Some(field.as_bytes()), NOW, &FailedChecks::default()).unwrap();
    assert!(std::rc::Rc::ptr_eq(&first, &second));
}

#[test]
fn the_subject_is_a_text_that_can_be_stored() {
    let with_sub = |sub: &str| verify(&token(HEADER, &format!(r#"{{"sub":{sub},"exp":{}}}"#, NOW + 60)));
    assert_eq!(with_sub(r#""J\u00f6rg \ud83d\ude00""#), Ok("Jörg 😀".to_owned()));
    let longest = "a".repeat(USER_ID_MAX_BYTES);
    assert_eq!(with_sub(&format!("\"{longest}\"")), Ok(longest.clone()));
    for wrong in ["\"\"".to_owned(), r#""a\u0000""#.to_owned(), r#""a\n""#.to_owned(), format!("\"{longest}a\"")] {
        assert_eq!(with_sub(&wrong), Err(AuthError::InvalidSubject), "{wrong}");
    }
    for wrong in ["7", "[\"alice\"]", "{\"a\":1}", "true"] {
        assert_eq!(with_sub(wrong), Err(AuthError::MalformedClaim(Claim::Subject)), "{wrong}");
    }
    assert_eq!(with_sub("null"), Err(AuthError::InvalidSubject));
    assert_eq!(with_sub("\"\\ud800\""), Err(AuthError::MalformedClaims));
    let expiry = NOW + 60;
    assert_eq!(verify(&token(HEADER, &format!(r#"{{"exp":{expiry}}}"#))), Err(AuthError::InvalidSubject));
    let doubled = format!(r#"{{"sub":"alice","exp":{expiry},"sub":"bob"}}"#);
    assert_eq!(verify(&token(HEADER, &doubled)), Err(AuthError::RepeatedClaim(Claim::Subject)));
    for payload in ["", "null", "[]", "\"alice\"", "{\"sub\":\"alice\"", "\u{feff}{}"] {
        assert_eq!(verify(&token(HEADER, payload)), Err(AuthError::MalformedClaims), "{payload}");
    }
    let nested = format!(r#"{{"sub":"alice","exp":{expiry},"x":{}{}}}"#, "[".repeat(2000), "]".repeat(2000));
    // What is skipped is skipped without recursion, so that depth costs no stack.
    assert_eq!(verify(&token(HEADER, &nested)), Ok("alice".to_owned()));
}

#[test]
fn null_where_nothing_is_checked_is_no_reason_to_refuse() {
    assert_eq!(verify(&alice(r#","aud":null,"iss":null,"nbf":null"#)), Ok("alice".to_owned()));
    for wrong in [r#","aud":7"#, r#","aud":[null]"#] {
        assert_eq!(verify(&alice(wrong)), Err(AuthError::MalformedClaim(Claim::Audience)), "{wrong}");
    }
}

#[test]
fn issuer_and_audience_are_checked_when_set() {
    let settings = Auth { issuer: Some("https://login".to_owned()), audiences: vec!["todos".to_owned()], ..settings() };
    let mut verifier = Verifier::of_secret(&Secret::new(KEY), &settings);
    let mut with = |more: &str| verify_with(&mut verifier, &alice(more), NOW).err();
    assert_eq!(with(r#","iss":"https://login","aud":"todos""#), None);
    assert_eq!(with(r#","iss":"https://login","aud":["mail","todos"]"#), None);
    for wrong in [r#","aud":"todos""#, r#","iss":"https://login/","aud":"todos""#, r#","iss":"","aud":"todos""#] {
        assert_eq!(with(wrong), Some(AuthError::WrongIssuer), "{wrong}");
    }
    for wrong in ["", r#","aud":null"#, r#","aud":"todo""#, r#","aud":[]"#, r#","aud":["todos "]"#] {
        assert_eq!(with(&format!(r#","iss":"https://login"{wrong}"#)), Some(AuthError::WrongAudience), "{wrong}");
    }
}

#[test]
fn a_minted_token_is_what_it_should_be_and_verifies() {
    let settings = Auth { issuer: Some("https://login".to_owned()), audiences: vec!["todos".to_owned()], ..settings() };
    let secret = Secret::new(KEY);
    let minted = mint(&secret, &settings, "alice", Duration::from_secs(60), NOW).unwrap();
    let (message, signature) = minted.rsplit_once('.').unwrap();
    assert_eq!(signature, URL_SAFE_NO_PAD.encode(sign(KEY, message)));
    let (_, claims) = message.split_once('.').unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    assert_eq!(
        claims,
        serde_json::json!({"sub": "alice", "iat": NOW, "exp": NOW + 60, "iss": "https://login", "aud": "todos"})
    );
    let mut verifier = Verifier::of_secret(&secret, &settings);
    assert_eq!(verify_with(&mut verifier, &minted, NOW), Ok("alice".to_owned()));
    assert!(matches!(mint(&secret, &settings, "", Duration::from_secs(60), NOW), Err(MintError::Subject(_))));
}

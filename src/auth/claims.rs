//! The claims that matter, read strictly: one of a wrong type, or that stands twice, is an error that names it. `null` is absence:
//! issuers write it for what they do not know, and a claim that has to be there is missed all the same.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::error::Claim;
use super::{AuthError, UnixSeconds};

/// The claims of a token that this server looks at. Everything else in the payload is skipped.
#[derive(Debug, Default, PartialEq)]
pub struct Claims {
    pub subject: Option<String>,
    /// The first second in which the token is no longer valid.
    pub expires_at: Option<UnixSeconds>,
    /// The first second in which the token is valid.
    pub not_before: Option<UnixSeconds>,
    pub issuer: Option<String>,
    pub audience: Option<Audience>,
}

/// What a payload says: claims, or the first that is refused.
#[derive(Debug)]
pub struct Payload(pub Result<Claims, AuthError>);

impl<'de> Deserialize<'de> for Payload {
    /// Reads a JSON object and nothing else; derived code would take an array too.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Payload, D::Error> {
        deserializer.deserialize_map(PayloadVisitor).map(Payload)
    }
}

struct PayloadVisitor;

impl<'de> Visitor<'de> for PayloadVisitor {
    type Value = Result<Claims, AuthError>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object of claims")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut claims = Claims::default();
        let mut seen = Vec::new();
        let mut refused = None;
        while let Some(name) = members.next_key::<String>()? {
            let Some(claim) = Claim::from_name(&name) else {
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = members.next_value::<ClaimValue>()?;
            // RFC 7519 section 4: names of claims are unique.
            let is_repeated = seen.contains(&claim);
            let taken = if is_repeated { Err(AuthError::RepeatedClaim(claim)) } else { claims.take(claim, value) };
            seen.push(claim);
            refused = refused.or(taken.err());
        }
        Ok(refused.map_or(Ok(claims), Err))
    }
}

impl Claims {
    fn take(&mut self, claim: Claim, value: ClaimValue) -> Result<(), AuthError> {
        match (claim, value) {
            (_, ClaimValue::Null) => {}
            (Claim::Subject, ClaimValue::Text(text)) => self.subject = Some(text),
            (Claim::Issuer, ClaimValue::Text(text)) => self.issuer = Some(text),
            (Claim::Audience, ClaimValue::Text(text)) => self.audience = Some(Audience(vec![text])),
            (Claim::Audience, ClaimValue::Texts(texts)) => self.audience = Some(Audience(texts)),
            // `now` is in whole seconds, rounded down: an `exp` has to be rounded down too, so as not to outlive itself.
            (Claim::ExpiresAt, ClaimValue::Whole(seconds)) => self.expires_at = Some(seconds),
            // The casts saturate: a date after the end of time is the end of time.
            (Claim::ExpiresAt, ClaimValue::Fractional(seconds)) => {
                self.expires_at = Some(seconds.floor() as UnixSeconds)
            }
            (Claim::NotBefore, ClaimValue::Whole(seconds)) => self.not_before = Some(seconds),
            (Claim::NotBefore, ClaimValue::Fractional(seconds)) => {
                self.not_before = Some(seconds.ceil() as UnixSeconds)
            }
            _ => return Err(AuthError::MalformedClaim(claim)),
        }
        Ok(())
    }
}

/// RFC 7519 section 4.1.3: one audience or several.
#[derive(Debug, PartialEq)]
pub struct Audience(Vec<String>);

impl Audience {
    pub fn names(&self, audience: &str) -> bool {
        self.0.iter().any(|one| one == audience)
    }
}

/// A claim's value, of whatever type, so that a wrong one can be named. Dates are numbers of seconds since the epoch, whole
/// or not (RFC 7519 section 2).
enum ClaimValue {
    Null,
    Text(String),
    Texts(Vec<String>),
    Whole(UnixSeconds),
    Fractional(f64),
    Other,
}

impl<'de> Deserialize<'de> for ClaimValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ClaimValue, D::Error> {
        deserializer.deserialize_any(ClaimValueVisitor)
    }
}

struct ClaimValueVisitor;

impl<'de> Visitor<'de> for ClaimValueVisitor {
    type Value = ClaimValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value of a claim")
    }

    fn visit_unit<E>(self) -> Result<ClaimValue, E> {
        Ok(ClaimValue::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<ClaimValue, E> {
        Ok(ClaimValue::Other)
    }

    fn visit_i64<E>(self, number: i64) -> Result<ClaimValue, E> {
        Ok(ClaimValue::Whole(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<ClaimValue, E> {
        Ok(ClaimValue::Whole(UnixSeconds::try_from(number).unwrap_or(UnixSeconds::MAX)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<ClaimValue, E> {
        Ok(ClaimValue::Fractional(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<ClaimValue, E> {
        Ok(ClaimValue::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<ClaimValue, A::Error> {
        let mut texts = Some(Vec::new());
        while let Some(element) = elements.next_element::<ClaimValue>()? {
            texts = match (texts, element) {
                (Some(mut texts), ClaimValue::Text(text)) => {
                    texts.push(text);
                    Some(texts)
                }
                _ => None,
            };
        }
        Ok(texts.map_or(ClaimValue::Other, ClaimValue::Texts))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<ClaimValue, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(ClaimValue::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<Claims> {
        serde_json::from_str::<Payload>(json).ok()?.0.ok()
    }

    fn refusal(json: &str) -> Option<AuthError> {
        serde_json::from_str::<Payload>(json).ok()?.0.err()
    }

    #[test]
    fn dates_may_be_whole_or_fractional_and_round_to_the_safe_side() {
        for (json, expires_at, not_before) in [
            (r#"{"exp":5,"nbf":5}"#, 5, 5),
            (r#"{"exp":5.9,"nbf":5.1}"#, 5, 6),
            (r#"{"exp":-0.5,"nbf":-0.5}"#, -1, 0),
            (r#"{"exp":1e3,"nbf":1E3}"#, 1000, 1000),
            (r#"{"exp":18446744073709551615,"nbf":1e300}"#, i64::MAX, i64::MAX),
        ] {
            let claims = read(json).unwrap();
            assert_eq!((claims.expires_at, claims.not_before), (Some(expires_at), Some(not_before)), "{json}");
        }
    }

    #[test]
    fn wrong_types_and_doubles_are_named() {
        for (json, claim) in [
            (r#"{"exp":"5"}"#, Claim::ExpiresAt),
            (r#"{"exp":true}"#, Claim::ExpiresAt),
            (r#"{"exp":[5]}"#, Claim::ExpiresAt),
            (r#"{"exp":{}}"#, Claim::ExpiresAt),
            (r#"{"nbf":"5"}"#, Claim::NotBefore),
            (r#"{"sub":7}"#, Claim::Subject),
            (r#"{"sub":["a"]}"#, Claim::Subject),
            (r#"{"iss":["a"]}"#, Claim::Issuer),
            (r#"{"aud":{"a":1}}"#, Claim::Audience),
            (r#"{"aud":7,"exp":"5"}"#, Claim::Audience),
            (r#"{"aud":["a",1]}"#, Claim::Audience),
            (r#"{"aud":["a",null]}"#, Claim::Audience),
        ] {
            assert_eq!(refusal(json), Some(AuthError::MalformedClaim(claim)), "{json}");
        }
        for (json, claim) in [
            (r#"{"sub":"a","sub":"a"}"#, Claim::Subject),
            (r#"{"sub":"a","s\u0075b":"b"}"#, Claim::Subject),
            (r#"{"exp":null,"exp":6}"#, Claim::ExpiresAt),
        ] {
            assert_eq!(refusal(json), Some(AuthError::RepeatedClaim(claim)), "{json}");
        }
    }

    #[test]
    fn null_is_absence() {
        let json = r#"{"sub":null,"exp":null,"nbf":null,"iss":null,"aud":null}"#;
        assert_eq!(read(json), Some(Claims::default()));
    }

    #[test]
    fn what_is_no_object_of_json_is_an_error_as_a_whole() {
        for json in [r#"["a",5,0,"b","c"]"#, r#""sub""#, r#"{"sub":"a"} x"#, r#"{"sub":"\ud800"}"#, r#"{"exp":1e400}"#]
        {
            assert!(serde_json::from_str::<Payload>(json).is_err(), "{json}");
        }
        assert_eq!(read(r#"{"other":1e400,"other":[{}]}"#), Some(Claims::default()));
    }
}

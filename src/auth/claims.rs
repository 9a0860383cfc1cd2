//! The claims that matter, read strictly: wrong types, doubles and `null` are errors, not absence.

use std::fmt;

use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::UnixSeconds;

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

impl<'de> Deserialize<'de> for Claims {
    /// Reads a JSON object and nothing else; derived code would take an array too.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Claims, D::Error> {
        deserializer.deserialize_map(ClaimsVisitor)
    }
}

struct ClaimsVisitor;

impl<'de> Visitor<'de> for ClaimsVisitor {
    type Value = Claims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object of claims")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Claims, A::Error> {
        let mut claims = Claims::default();
        while let Some(name) = members.next_key::<String>()? {
            match name.as_str() {
                "sub" => take(&mut claims.subject, members.next_value()?)?,
                "exp" => take(&mut claims.expires_at, members.next_value::<NumericDate>()?.rounded_down())?,
                "nbf" => take(&mut claims.not_before, members.next_value::<NumericDate>()?.rounded_up())?,
                "iss" => take(&mut claims.issuer, members.next_value()?)?,
                "aud" => take(&mut claims.audience, members.next_value()?)?,
                _ => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(claims)
    }
}

/// RFC 7519 section 4: names of claims are unique.
fn take<T, E: Error>(claim: &mut Option<T>, value: T) -> Result<(), E> {
    match claim.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::custom("a claim stands twice")),
    }
}

/// RFC 7519 section 2: a number of seconds since the epoch, whole or not.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumericDate {
    Whole(UnixSeconds),
    Fractional(f64),
}

impl NumericDate {
    /// `now` is in whole seconds, rounded down: an `exp` has to be rounded down too, so as not to outlive itself.
    fn rounded_down(self) -> UnixSeconds {
        match self {
            NumericDate::Whole(seconds) => seconds,
            // The cast saturates: a date after the end of time is the end of time.
            NumericDate::Fractional(seconds) => seconds.floor() as UnixSeconds,
        }
    }

    fn rounded_up(self) -> UnixSeconds {
        match self {
            NumericDate::Whole(seconds) => seconds,
            NumericDate::Fractional(seconds) => seconds.ceil() as UnixSeconds,
        }
    }
}

/// RFC 7519 section 4.1.3: one audience or several.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    pub fn names(&self, audience: &str) -> bool {
        match self {
            Audience::One(one) => one == audience,
            Audience::Several(several) => several.iter().any(|one| one == audience),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<Claims> {
        serde_json::from_str(json).ok()
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
    fn wrong_types_doubles_and_null_are_errors() {
        for json in [
            r#"{"exp":"5"}"#,
            r#"{"exp":null}"#,
            r#"{"exp":true}"#,
            r#"{"exp":[5]}"#,
            r#"{"exp":1e400}"#,
            r#"{"nbf":null}"#,
            r#"{"sub":7}"#,
            r#"{"sub":null}"#,
            r#"{"sub":["a"]}"#,
            r#"{"sub":"a","sub":"a"}"#,
            r#"{"sub":"a","s\u0075b":"b"}"#,
            r#"{"exp":5,"exp":6}"#,
            r#"{"iss":["a"]}"#,
            r#"{"aud":{"a":1}}"#,
            r#"{"aud":["a",1]}"#,
            r#"["a",5,0,"b","c"]"#,
            r#""sub""#,
            r#"{"sub":"a"} x"#,
            r#"{"sub":"\ud800"}"#,
        ] {
            assert_eq!(read(json), None, "{json}");
        }
        assert_eq!(read(r#"{"other":1,"other":[{}]}"#), Some(Claims::default()));
    }
}

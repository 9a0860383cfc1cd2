//! The claims that matter, read strictly: one of a wrong type, or that stands twice, is an error that names it. `null` is absence:
//! issuers write it for what they do not know, and a claim that has to be there is missed all the same.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::error::Claim;
use super::{AuthError, UnixSeconds};

/// The claims of a token that this server looks at. Everything else in the payload is skipped.
#[derive(Debug, Default, PartialEq)]
pub struct Claims {
    /// Who it is: `sub`, or the claim that the settings name.
    pub user: Option<String>,
    /// The first second in which the token is no longer valid.
    pub expires_at: Option<UnixSeconds>,
    /// The first second in which the token is valid.
    pub not_before: Option<UnixSeconds>,
    pub issuer: Option<String>,
    pub audience: Option<Audience>,
    /// What the token is good for, where that is asked.
    pub scopes: Vec<String>,
}

/// Which claims the settings ask for.
#[derive(Debug, Clone)]
pub struct ClaimNames {
    /// The members that lead to the user, from the outermost on.
    user: Vec<String>,
    scopes: bool,
}

impl ClaimNames {
    /// The names for this `JWT_USER_CLAIM`: the name of a claim, or a path that begins with a slash. `scopes` says whether scopes are
    /// asked for.
    pub fn new(user: &str, scopes: bool) -> ClaimNames {
        let user = match user.strip_prefix('/') {
            Some(path) => path.split('/').map(str::to_owned).collect(),
            None => vec![user.to_owned()],
        };
        ClaimNames { user, scopes }
    }

    /// Whether the user is `sub`.
    pub fn user_is_subject(&self) -> bool {
        self.user == ["sub"]
    }

    /// The members that lead to the user.
    pub fn user(&self) -> &[String] {
        &self.user
    }

    /// The claims of a payload.
    ///
    /// # Errors
    /// [`AuthError::MalformedClaims`] when it is no JSON object; else the first claim that is refused.
    pub fn read(&self, payload: &[u8]) -> Result<Claims, AuthError> {
        let mut deserializer = serde_json::Deserializer::from_slice(payload);
        // A JSON object and nothing else; derived code would take an array too.
        let claims = deserializer.deserialize_map(PayloadVisitor(self)).map_err(|_| AuthError::MalformedClaims)?;
        deserializer.end().map_err(|_| AuthError::MalformedClaims)?;
        claims
    }

    fn claim(&self, name: &str) -> Option<Claim> {
        Some(match name {
            _ if name == self.user[0] && self.user_is_subject() => Claim::Subject,
            _ if name == self.user[0] => Claim::User,
            "exp" => Claim::ExpiresAt,
            "nbf" => Claim::NotBefore,
            "iss" => Claim::Issuer,
            "aud" => Claim::Audience,
            "scope" if self.scopes => Claim::Scope,
            "scp" if self.scopes => Claim::Scp,
            _ => return None,
        })
    }
}

struct PayloadVisitor<'a>(&'a ClaimNames);

impl<'de> Visitor<'de> for PayloadVisitor<'_> {
    type Value = Result<Claims, AuthError>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object of claims")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut claims = Claims::default();
        let mut seen = Vec::new();
        let mut refused = None;
        while let Some(name) = members.next_key::<String>()? {
            let Some(claim) = self.0.claim(&name) else {
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            let below = if claim == Claim::User { &self.0.user[1..] } else { &[] };
            let value = members.next_value_seed(At(below))?;
            // RFC 7519 section 4: names of claims are unique.
            let is_repeated = seen.contains(&claim);
            let taken = if is_repeated { Err(AuthError::RepeatedClaim(claim)) } else { claims.take(claim, value) };
            seen.push(claim);
            refused = refused.or(taken.err());
        }
        Ok(refused.map_or(Ok(claims), Err))
    }
}

/// The value at the end of these members.
struct At<'a>(&'a [String]);

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = ClaimValue;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<ClaimValue, D::Error> {
        deserializer.deserialize_any(ClaimValueVisitor(self.0))
    }
}

impl Claims {
    fn take(&mut self, claim: Claim, value: ClaimValue) -> Result<(), AuthError> {
        match (claim, value) {
            (_, ClaimValue::Null) => {}
            (_, ClaimValue::Repeated) => return Err(AuthError::RepeatedClaim(claim)),
            (Claim::Subject | Claim::User, ClaimValue::Text(text)) => self.user = Some(text),
            (Claim::Scope | Claim::Scp, ClaimValue::Text(text)) => {
                self.scopes.extend(text.split(' ').map(str::to_owned));
            }
            (Claim::Scp, ClaimValue::Texts(texts)) => self.scopes.extend(texts),
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
    /// A member of the path to it stands twice.
    Repeated,
    Other,
}

/// Reads the value itself where there is no path, else what is at its end.
struct ClaimValueVisitor<'a>(&'a [String]);

impl ClaimValueVisitor<'_> {
    /// A value that is no object has nothing at the end of a path.
    fn here<E>(&self, value: ClaimValue) -> Result<ClaimValue, E> {
        Ok(if self.0.is_empty() { value } else { ClaimValue::Other })
    }
}

impl<'de> Visitor<'de> for ClaimValueVisitor<'_> {
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
        self.here(ClaimValue::Whole(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<ClaimValue, E> {
        self.here(ClaimValue::Whole(UnixSeconds::try_from(number).unwrap_or(UnixSeconds::MAX)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<ClaimValue, E> {
        self.here(ClaimValue::Fractional(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<ClaimValue, E> {
        self.here(ClaimValue::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<ClaimValue, A::Error> {
        let mut texts = Some(Vec::new());
        while let Some(element) = elements.next_element_seed(At(&[]))? {
            texts = match (texts, element) {
                (Some(mut texts), ClaimValue::Text(text)) => {
                    texts.push(text);
                    Some(texts)
                }
                _ => None,
            };
        }
        self.here(texts.map_or(ClaimValue::Other, ClaimValue::Texts))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<ClaimValue, A::Error> {
        let Some((wanted, below)) = self.0.split_first() else {
            while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(ClaimValue::Other);
        };
        let mut found = None;
        while let Some(name) = members.next_key::<String>()? {
            if name == *wanted {
                let value = members.next_value_seed(At(below))?;
                found = Some(if found.is_some() { ClaimValue::Repeated } else { value });
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found.unwrap_or(ClaimValue::Null))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<Claims> {
        ClaimNames::new("sub", false).read(json.as_bytes()).ok()
    }

    fn refusal(json: &str) -> Option<AuthError> {
        ClaimNames::new("sub", false).read(json.as_bytes()).err()
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
            assert_eq!(refusal(json), Some(AuthError::MalformedClaims), "{json}");
        }
        assert_eq!(read(r#"{"other":1e400,"other":[{}]}"#), Some(Claims::default()));
    }

    #[test]
    fn the_user_may_be_another_claim_or_lie_deeper() {
        let user =
            |path: &str, json: &str| ClaimNames::new(path, false).read(json.as_bytes()).map(|claims| claims.user);
        let json =
            r#"{"sub":"s","email":"e","https://a/b":"u","realm":{"x":[{"user":"no"}],"user":"r","b":{"c":"d"}}}"#;
        for (path, found) in [
            ("sub", Some("s")),
            ("email", Some("e")),
            ("https://a/b", Some("u")),
            ("/realm/user", Some("r")),
            ("/realm/b/c", Some("d")),
            ("/sub", Some("s")),
            ("/realm/none", None),
            ("other", None),
        ] {
            assert_eq!(user(path, json), Ok(found.map(str::to_owned)), "{path}");
        }
        for wrong in [r#"{"realm":7}"#, r#"{"realm":["user"]}"#, r#"{"realm":{"user":7}}"#, r#"{"realm":{"user":{}}}"#]
        {
            assert_eq!(user("/realm/user", wrong), Err(AuthError::MalformedClaim(Claim::User)), "{wrong}");
        }
        for doubled in [r#"{"realm":{"user":"a"},"realm":{"user":"b"}}"#, r#"{"realm":{"user":"a","us\u0065r":"a"}}"#] {
            assert_eq!(user("/realm/user", doubled), Err(AuthError::RepeatedClaim(Claim::User)), "{doubled}");
        }
        // Where the user is another claim, `sub` is one of those that nobody looks at.
        assert_eq!(user("email", r#"{"sub":7,"sub":8,"email":"e"}"#), Ok(Some("e".to_owned())));
    }

    #[test]
    fn scopes_are_a_text_with_spaces_or_a_list() {
        let scopes = |json: &str| ClaimNames::new("sub", true).read(json.as_bytes()).map(|claims| claims.scopes);
        assert_eq!(scopes(r#"{"scope":"a b:c"}"#).unwrap(), ["a", "b:c"]);
        assert_eq!(scopes(r#"{"scp":["a","b c"]}"#).unwrap(), ["a", "b c"]);
        assert_eq!(scopes(r#"{"scp":"a b","scope":"c"}"#).unwrap(), ["a", "b", "c"]);
        assert_eq!(scopes(r#"{"scope":["a"]}"#), Err(AuthError::MalformedClaim(Claim::Scope)));
        assert_eq!(scopes(r#"{"scp":{"a":1}}"#), Err(AuthError::MalformedClaim(Claim::Scp)));
        assert_eq!(scopes(r#"{"scope":"a","scope":"b"}"#), Err(AuthError::RepeatedClaim(Claim::Scope)));
        assert_eq!(read(r#"{"scope":7,"scp":8}"#), Some(Claims::default()), "nobody asks");
    }
}

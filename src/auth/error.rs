//! Why a request has no user.

use std::fmt;

/// Why a request has no user. No variant carries bytes of the token, so that none can get into an answer or a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthError {
    /// No `Authorization` field, or one of another scheme.
    Missing,
    /// Not `Bearer` and one token; or a token that is not three parts of base64url.
    Malformed,
    /// Longer than [`crate::limits::TOKEN_MAX_BYTES`].
    TooLong,
    /// The header is not understood, or its `alg` is not HS256, which is the only one here.
    WrongHeader,
    /// No key here is for the `alg` of the header.
    WrongAlgorithm,
    /// No key here has the `kid` of the header, and the keys are those of the issuer.
    UnknownKey,
    /// The same, but the issuer may have it: its keys have not been fetched yet, or not lately. Nobody knows whether the token is
    /// good.
    KeysAwaited,
    /// So many tokens were refused that this one is not looked at.
    TooManyFailed,
    /// The header names another kind of token (`typ`), or asks for an extension (`crit`, `b64`) that is not supported.
    Unsupported,
    /// The signature does not fit the key.
    WrongSignature,
    /// The claims are no JSON object, or a number among them is none that can be held.
    MalformedClaims,
    /// This claim has the wrong type.
    MalformedClaim(Claim),
    /// This claim stands twice.
    RepeatedClaim(Claim),
    /// No `exp`.
    MissingExpiry,
    /// `exp` has passed.
    Expired,
    /// `nbf` has not come.
    NotYetValid,
    /// No `sub`, or one that is empty, too long or has control characters.
    InvalidSubject,
    /// The claim of `JWT_USER_CLAIM` is missing, or as a `sub` may not be.
    InvalidUser,
    /// `scope` and `scp` do not name the scope that writes need.
    MissingScope,
    /// `iss` is not the one that the settings ask for.
    WrongIssuer,
    /// `aud` does not name the audience that the settings ask for.
    WrongAudience,
}

/// A claim that this server looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// `sub`
    Subject,
    /// `exp`
    ExpiresAt,
    /// `nbf`
    NotBefore,
    /// `iss`
    Issuer,
    /// `aud`
    Audience,
    /// The one of `JWT_USER_CLAIM`, where that is not `sub`.
    User,
    /// `scope`
    Scope,
    /// `scp`
    Scp,
}

impl Claim {
    /// All of them.
    #[cfg(test)]
    pub(super) const ALL: [Claim; 8] = [
        Claim::Subject,
        Claim::ExpiresAt,
        Claim::NotBefore,
        Claim::Issuer,
        Claim::Audience,
        Claim::User,
        Claim::Scope,
        Claim::Scp,
    ];
}

impl AuthError {
    /// The `error_description` of the challenge that goes with the 401: the text of the error, for a token that was sent
    /// but refused. A request without credentials gets no error code (RFC 6750 section 3.1), so no description either.
    pub const fn refusal(self) -> Option<&'static str> {
        Some(match self {
            AuthError::Missing => return None,
            AuthError::Malformed => "the token is malformed",
            AuthError::TooLong => "the token is too long",
            AuthError::WrongHeader => "the header is malformed or its algorithm is not HS256",
            AuthError::WrongAlgorithm => "no key that is accepted here is for the algorithm of the token",
            AuthError::UnknownKey => "no key that is accepted here has the kid of the token",
            AuthError::KeysAwaited => "the keys of the issuer have not been fetched",
            AuthError::TooManyFailed => "too many tokens were refused",
            AuthError::Unsupported => "the token is of an unsupported kind (typ, crit or b64 of its header)",
            AuthError::WrongSignature => "the signature is invalid",
            AuthError::MalformedClaims => "the claims are not a JSON object with numbers in range",
            AuthError::MalformedClaim(Claim::Subject) => "the claim sub is not a text",
            AuthError::MalformedClaim(Claim::ExpiresAt) => "the claim exp is not a number of seconds",
            AuthError::MalformedClaim(Claim::NotBefore) => "the claim nbf is not a number of seconds",
            AuthError::MalformedClaim(Claim::Issuer) => "the claim iss is not a text",
            AuthError::MalformedClaim(Claim::Audience) => "the claim aud is neither a text nor a list of texts",
            AuthError::MalformedClaim(Claim::User) => "the claim of the user is not a text",
            AuthError::MalformedClaim(Claim::Scope) => "the claim scope is not a text",
            AuthError::MalformedClaim(Claim::Scp) => "the claim scp is neither a text nor a list of texts",
            AuthError::RepeatedClaim(Claim::Subject) => "the claim sub is given twice",
            AuthError::RepeatedClaim(Claim::ExpiresAt) => "the claim exp is given twice",
            AuthError::RepeatedClaim(Claim::NotBefore) => "the claim nbf is given twice",
            AuthError::RepeatedClaim(Claim::Issuer) => "the claim iss is given twice",
            AuthError::RepeatedClaim(Claim::Audience) => "the claim aud is given twice",
            AuthError::RepeatedClaim(Claim::User) => "the claim of the user is given twice",
            AuthError::RepeatedClaim(Claim::Scope) => "the claim scope is given twice",
            AuthError::RepeatedClaim(Claim::Scp) => "the claim scp is given twice",
            AuthError::MissingExpiry => "the claim exp is missing",
            AuthError::Expired => "the token has expired (claim exp)",
            AuthError::NotYetValid => "the token is not valid yet (claim nbf)",
            AuthError::InvalidSubject => {
                "the claim sub is missing, empty, longer than 4096 bytes, or has control characters"
            }
            AuthError::InvalidUser => {
                "the claim of the user is missing, empty, longer than 4096 bytes, or has control characters"
            }
            AuthError::MissingScope => "the token does not have the scope that writes need",
            AuthError::WrongIssuer => "the claim iss is not the issuer that is accepted here",
            AuthError::WrongAudience => "the claim aud does not name the audience that is accepted here",
        })
    }
}

const _: () = assert!(crate::limits::USER_ID_MAX_BYTES == 4096, "the text about sub names the limit");

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.refusal().unwrap_or("a bearer token is required"))
    }
}

impl std::error::Error for AuthError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_carry_the_error_text_in_the_characters_that_rfc_6750_allows() {
        use AuthError::*;
        let mut errors = vec![
            Malformed,
            TooLong,
            WrongHeader,
            WrongAlgorithm,
            UnknownKey,
            KeysAwaited,
            TooManyFailed,
            InvalidUser,
            MissingScope,
            Unsupported,
            WrongSignature,
            MalformedClaims,
            MissingExpiry,
            Expired,
            NotYetValid,
            InvalidSubject,
            WrongIssuer,
            WrongAudience,
        ];
        errors.extend(Claim::ALL.into_iter().flat_map(|claim| [MalformedClaim(claim), RepeatedClaim(claim)]));
        for error in errors {
            let refusal = error.refusal().expect("every refused token has a reason");
            assert_eq!(refusal, error.to_string());
            assert!(refusal.bytes().all(|byte| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e)));
        }
        assert_eq!(Missing.refusal(), None);
    }
}

//! Why a request has no user.

/// Why a request has no user. No variant carries bytes of the token, so that none can get into an answer or a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No `Authorization` field, or one of another scheme.
    #[error("a bearer token is required")]
    Missing,
    /// Not `Bearer` and one token; or a token that is not three parts of base64url.
    #[error("the token is malformed")]
    Malformed,
    /// Longer than [`crate::limits::TOKEN_MAX_BYTES`].
    #[error("the token is too long")]
    TooLong,
    /// The header is not understood, or its `alg` is not HS256.
    #[error("the header is malformed or its algorithm is not HS256")]
    WrongHeader,
    /// The header names another kind of token (`typ`), or asks for an extension (`crit`, `b64`) that is not supported.
    #[error("the token is of an unsupported kind")]
    Unsupported,
    /// The signature does not fit the key.
    #[error("the signature is invalid")]
    WrongSignature,
    /// The claims are no JSON object, or one has the wrong type or stands twice.
    #[error("the claims are malformed")]
    MalformedClaims,
    /// No `exp`.
    #[error("the claim exp is missing")]
    MissingExpiry,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// No `sub`, or one that is empty, too long or has control characters.
    #[error("the claim sub is missing or invalid")]
    InvalidSubject,
    /// `iss` is not the one that the settings ask for.
    #[error("the issuer is not accepted")]
    WrongIssuer,
    /// `aud` does not name the audience that the settings ask for.
    #[error("the audience is not accepted")]
    WrongAudience,
}

impl AuthError {
    /// The `error_description` of the challenge that goes with the 401: the text of the error, for a token that was sent
    /// but refused. A request without credentials gets no error code (RFC 6750 section 3.1), so no description either.
    pub const fn description(self) -> Option<&'static str> {
        match self {
            AuthError::Missing => None,
            AuthError::Malformed => Some("the token is malformed"),
            AuthError::TooLong => Some("the token is too long"),
            AuthError::WrongHeader => Some("the header is malformed or its algorithm is not HS256"),
            AuthError::Unsupported => Some("the token is of an unsupported kind"),
            AuthError::WrongSignature => Some("the signature is invalid"),
            AuthError::MalformedClaims => Some("the claims are malformed"),
            AuthError::MissingExpiry => Some("the claim exp is missing"),
            AuthError::Expired => Some("the token has expired"),
            AuthError::NotYetValid => Some("the token is not valid yet"),
            AuthError::InvalidSubject => Some("the claim sub is missing or invalid"),
            AuthError::WrongIssuer => Some("the issuer is not accepted"),
            AuthError::WrongAudience => Some("the audience is not accepted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_carry_the_error_text_in_the_characters_that_rfc_6750_allows() {
        use AuthError::*;
        for error in [
            Malformed,
            TooLong,
            WrongHeader,
            Unsupported,
            WrongSignature,
            MalformedClaims,
            MissingExpiry,
            Expired,
            NotYetValid,
            InvalidSubject,
            WrongIssuer,
            WrongAudience,
        ] {
            let description = error.description().expect("every refused token has a reason");
            assert_eq!(description, error.to_string());
            assert!(description.bytes().all(|byte| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e)));
        }
        assert_eq!(Missing.description(), None);
    }
}

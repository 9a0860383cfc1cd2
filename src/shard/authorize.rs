//! Who may write, and who `me` is: the user that a token names.

use std::rc::Rc;

use super::Shard;
use super::reply::RETRY_AFTER_S;
use crate::auth::{AuthError, FailedChecks, UnixSeconds};
use crate::http::response::Challenge;
use crate::http::{Head, Problem, ProblemKind};
use crate::limits::KEYS_RETRY_S;

impl Shard {
    pub(super) fn authenticate(&self, head: &Head<'_>, failed_checks: &FailedChecks) -> Result<Rc<str>, Problem> {
        let (authorization, now) = (head.authorization(), self.clock.unix_seconds());
        let verified = self.verifier.borrow_mut().verify(authorization, now, failed_checks);
        verified.map_err(|error| self.refusal(error, authorization, now))
    }

    /// The user who asks, who need not be allowed to write.
    pub(super) fn identify(&self, head: &Head<'_>, failed_checks: &FailedChecks) -> Result<Rc<str>, Problem> {
        let (authorization, now) = (head.authorization(), self.clock.unix_seconds());
        let identified = self.verifier.borrow_mut().identify(authorization, now, failed_checks);
        identified.map(|(user, _)| user).map_err(|error| self.refusal(error, authorization, now))
    }

    fn refusal(&self, error: AuthError, authorization: Option<&[u8]>, now: UnixSeconds) -> Problem {
        match error {
            AuthError::TooManyFailed => {
                self.metrics.tokens_not_checked.add(1);
                Problem::too_many_requests(
                    ProblemKind::TooManyBadTokens,
                    "tokens of this connection were refused, and this one was not looked at; nothing was written",
                    RETRY_AFTER_S,
                )
            }
            AuthError::KeysAwaited => Problem::unavailable(
                ProblemKind::TokenKeysAwaited,
                "the token may be signed with a key of its issuer that has not been fetched yet, and /ready says why; nothing was written",
                KEYS_RETRY_S,
            ),
            AuthError::MissingScope => Problem::insufficient_scope(),
            error => {
                if error == AuthError::WrongSignature {
                    self.other_keys.explain(authorization, now);
                }
                Problem::unauthorized(error.refusal().map_or(Challenge::Missing, Challenge::InvalidToken))
            }
        }
    }
}

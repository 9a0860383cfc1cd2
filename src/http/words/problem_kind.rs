//! The kinds of problems that this server answers with: the list is a part of the contract.

use super::status::Status;

macro_rules! problem_kinds {
    ($($name:ident = $status:ident $slug:literal $title:literal, $meaning:literal, $remedy:literal;)+) => {
        /// What is wrong, as far as a program has to know: the member `type` of a problem (RFC 9457 section 3.1.1).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ProblemKind {
            $(#[doc = $title] $name,)+
        }

        impl ProblemKind {
            /// Every kind.
            pub const ALL: &[ProblemKind] = &[$(ProblemKind::$name,)+];

            /// The status that it is answered with.
            pub const fn status(self) -> Status {
                match self {
                    $(ProblemKind::$name => Status::$status,)+
                }
            }

            /// Its name: the last part of its address.
            pub const fn slug(self) -> &'static str {
                match self {
                    $(ProblemKind::$name => $slug,)+
                }
            }

            /// The member `type`: where its page is, on whatever host. RFC 9457 advises a whole path where a reference is relative.
            pub const fn reference(self) -> &'static str {
                match self {
                    $(ProblemKind::$name => concat!("/docs/problems/", $slug),)+
                }
            }

            /// The member `title`, the same each time.
            pub const fn title(self) -> &'static str {
                match self {
                    $(ProblemKind::$name => $title,)+
                }
            }

            /// What it means.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(ProblemKind::$name => $meaning,)+
                }
            }

            /// What to do about it.
            pub const fn remedy(self) -> &'static str {
                match self {
                    $(ProblemKind::$name => $remedy,)+
                }
            }
        }
    };
}

problem_kinds! {
    MalformedRequest = BadRequest "malformed-request" "The request is malformed",
        "The head of the request, or the framing of its body, breaks a rule of HTTP. Where the next request would begin is not sure, so the connection closes.",
        "Mend the client: the detail names the rule. The same request will be refused again.";
    InvalidParameter = BadRequest "invalid-parameter" "A parameter is invalid",
        "A parameter of the query, or a field of the head, has a value that it cannot have, stands twice, or is not known.",
        "The detail names the parameter and what it can be. A cursor comes from the field Link of the page before, unchanged.";
    InvalidTodoId = BadRequest "invalid-todo-id" "The id of the todo is invalid",
        "The last part of the path is no UUID, so no todo can have it.",
        "Take ids from the list, or from the answer to the create.";
    InvalidBody = BadRequest "invalid-body" "The body is invalid",
        "The body is no JSON object, or one of its members has a wrong type, is too long, is missing or stands twice.",
        "The detail names the member, or the line and byte where the JSON ends to be JSON.";
    TokenMissing = Unauthorized "token-missing" "A token is needed",
        "Writes need a token, and the request has none.",
        "Send Authorization: Bearer <token>. Whoever runs the server gives tokens, or its issuer.";
    TokenInvalid = Unauthorized "token-invalid" "The token is not valid",
        "The token has expired, is not signed with a key that the server knows, or lacks a claim.",
        "The detail says which. Get another token; the same one will be refused again.";
    InsufficientScope = Forbidden "insufficient-scope" "The token may not write",
        "The token is valid, and lacks the scope that the server asks for (JWT_WRITE_SCOPE).",
        "Ask the issuer for a token with that scope.";
    NotOwner = Forbidden "not-owner" "The todo belongs to another user",
        "Only the user who made a todo may change or delete it.",
        "Write with the token of that user, or leave the todo as it is.";
    PageTokenRefused = Forbidden "page-token-refused" "No token is made for this asker",
        "Tokens for the page are made for whoever asks from the server's machine, with the key in the address that the server prints.",
        "Open the page at that address, or make a token with the command million-rps token.";
    NoSuchPath = NotFound "no-such-path" "There is nothing at this path",
        "No resource has this path, or this server does not offer it.",
        "See /docs for all paths. A slash at the end is another path.";
    NoSuchTodo = NotFound "no-such-todo" "There is no todo with this id",
        "The list has no such todo: it was deleted, has never been, or its create does not show yet.",
        "Behind a create, send the create with Prefer: wait=10: its answer comes when the todo shows.";
    MethodNotAllowed = MethodNotAllowed "method-not-allowed" "The resource does not allow this method",
        "The method is known, and not for this resource.",
        "The field Allow has those that are.";
    NotAcceptable = NotAcceptable "not-acceptable" "What there is is not acceptable",
        "The resource is a stream of events, and Accept leaves text/event-stream out.",
        "Send Accept: text/event-stream, or none.";
    RequestTimeout = RequestTimeout "request-timeout" "The request took too long to arrive",
        "The head or the body did not arrive in time. The connection closes, and nothing was written.",
        "Send the request again, on a new connection and without a pause.";
    PreconditionFailed = PreconditionFailed "precondition-failed" "A condition does not hold",
        "If-Match or If-None-Match does not hold: the todo has changed since it was read, or is not there. Nothing was written.",
        "Read the todo again, make the change on what it is now, and send it with the new entity tag.";
    BodyTooLarge = ContentTooLarge "body-too-large" "The body is too large",
        "The body is longer than the server takes (BODY_MAX_BYTES), or becomes a command that its log does not take. Nothing was written.",
        "Send a shorter one; the detail has the limit.";
    UriTooLong = UriTooLong "uri-too-long" "The address is too long",
        "Path and query are longer than any that mean something here.",
        "Send a shorter query.";
    UnsupportedMediaType = UnsupportedMediaType "unsupported-media-type" "The body is of another type than JSON",
        "Content-Type names another format than JSON, another charset than UTF-8, or the body has a Content-Encoding.",
        "Send JSON in UTF-8 as application/json, without a Content-Encoding.";
    ExpectationFailed = ExpectationFailed "expectation-failed" "The expectation is not known",
        "Expect asks for something else than 100-continue.",
        "Leave the field out.";
    MisdirectedRequest = MisdirectedRequest "misdirected-request" "The request is for another server",
        "The request names an https address, and this server speaks plain HTTP.",
        "Send it to the proxy that ends TLS, or with a path alone.";
    WriteRateExceeded = TooManyRequests "write-rate-exceeded" "The user writes too fast",
        "The user of the token writes faster than the server allows one user (WRITE_RATE_PER_USER). Nothing was written.",
        "Send the same request again after Retry-After.";
    TooManyTodos = TooManyRequests "too-many-todos" "The user has too many todos",
        "The user of the token has as many todos as one user may have (TODOS_PER_USER_MAX). Nothing was written.",
        "Delete some first; to send it again without that is of no use.";
    TooManyBadTokens = TooManyRequests "too-many-bad-tokens" "Too many tokens were refused",
        "Tokens on this connection were refused, and this one was not looked at. Nothing was written.",
        "Send the request again after Retry-After, with a good token or on another connection.";
    HeadTooLarge = HeaderFieldsTooLarge "head-too-large" "The head is too large",
        "The head of the request is too long, has too many fields, or the fields behind its body are too long.",
        "Send fewer or shorter fields; large cookies are a frequent reason.";
    InternalError = InternalServerError "internal-error" "The server failed",
        "The request failed for a reason of the server's own, which its log has.",
        "Try again once; a write may have been applied: send it with an Idempotency-Key. Tell whoever runs the server.";
    NotImplemented = NotImplemented "not-implemented" "The request asks for something that is not known here",
        "The method or the transfer coding is none that this server knows.",
        "Names of methods are case-sensitive; the only transfer coding is chunked.";
    ListNotLoaded = ServiceUnavailable "list-not-loaded" "The list is not loaded yet",
        "The server has just begun and has no list to answer from.",
        "Try again after Retry-After; /ready says what is awaited.";
    WriteNotTaken = ServiceUnavailable "write-not-taken" "The write was not taken",
        "The queue is full, or the command log or the store cannot be had. Nothing was written.",
        "Send the same request again after Retry-After; /ready says what is wrong.";
    WriteUnconfirmed = ServiceUnavailable "write-unconfirmed" "It is not known whether the write was taken",
        "The command log did not confirm the write in time. It may still be applied.",
        "Send the same request again: with the same Idempotency-Key a create is the same todo, and updates and deletes may be repeated.";
    TokenKeysAwaited = ServiceUnavailable "token-keys-awaited" "The keys of tokens are not there yet",
        "The token may be signed with a key of its issuer that has not been fetched yet. Nothing was written.",
        "Send the same request again after Retry-After.";
    ShortOfMemory = ServiceUnavailable "short-of-memory" "The server is short of memory for connections",
        "Buffers of connections have used up what they may. The request was not carried out, and the connection closes.",
        "Try again after Retry-After, with less at a time.";
    TooManyFollowers = ServiceUnavailable "too-many-followers" "Too many clients follow the list",
        "As many clients follow the list as may (EVENTS_FOLLOWERS_MAX).",
        "Connect again after Retry-After, to another process if there is one, or poll with If-None-Match.";
    ServerLeaving = ServiceUnavailable "server-leaving" "The server is about to stop",
        "The process takes no more followers, because it has been told to stop.",
        "Connect again after Retry-After; behind a load balancer another process answers.";
    VersionNotSupported = VersionNotSupported "version-not-supported" "The version of HTTP is not spoken here",
        "The request is neither HTTP/1.1 nor HTTP/1.0.",
        "Send HTTP/1.1; a proxy in front can speak the others.";
    ListFull = InsufficientStorage "list-full" "The list is full",
        "The list has as many bytes as it may (LIST_MAX_BYTES), and the write would make it longer. Nothing was written.",
        "Deletes still pass. Whoever runs the server can raise the limit.";
}

impl ProblemKind {
    /// The kind with this name.
    pub fn from_slug(slug: &[u8]) -> Option<ProblemKind> {
        Self::ALL.iter().copied().find(|kind| kind.slug().as_bytes() == slug)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_an_address_of_its_own_and_says_what_to_do() {
        for (at, kind) in ProblemKind::ALL.iter().enumerate() {
            assert_eq!(ProblemKind::from_slug(kind.slug().as_bytes()), Some(*kind));
            assert!(!ProblemKind::ALL[..at].iter().any(|other| other.title() == kind.title()), "{kind:?}");
            assert!(kind.slug().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{kind:?}");
            assert!(kind.status().code() >= 400, "{kind:?}");
            assert!(kind.meaning().ends_with('.') && kind.remedy().ends_with('.'), "{kind:?}");
        }
        assert_eq!(ProblemKind::from_slug(b""), None);
    }

    #[test]
    fn each_status_of_an_error_has_a_kind() {
        for status in Status::ALL.iter().filter(|status| status.code() >= 400) {
            assert!(ProblemKind::ALL.iter().any(|kind| kind.status() == *status), "{status:?}");
        }
    }
}

//! Tokens for the page: a person who sits at the machine on which the embedded server runs needs none to begin with.
//!
//! Who may read the token that the answer brings may write in the name of any user. So it is for whoever asks from this machine, and
//! of all web pages that a browser on this machine shows, for this server's own alone:
//!
//! - The connection comes from the loopback interface, the request names it by `Host`, and no proxy has left a mark ([`asker`]).
//!   A name that somebody has pointed at 127.0.0.1 (DNS rebinding) is in `Host`, and refused.
//! - The request has the page's key in the field `Page-Token`. The greeting prints it, in the address of the page: who asks has seen
//!   the server's terminal or its secret. For a proxy on this machine that leaves no mark, and for the machine's other users, an
//!   address of loopback says nothing. No form and no link can send the field, and a script of another origin has to ask by OPTIONS
//!   before, which is never answered with leave.
//! - Where the browser says by `Sec-Fetch-Site` or `Origin` which page has asked, it is this one.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::super::answer::Request;
use crate::auth::{self, MintError};
use crate::config::Auth;
use crate::http::content::check_json;
use crate::http::response::ContentType;
use crate::http::{Head, Problem, ProblemKind, Status, asker};
use crate::limits::PAGE_TOKEN_LIFETIME_S;

/// Makes tokens with the key of the process.
pub struct Minter {
    auth: Auth,
}

impl fmt::Debug for Minter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Minter")
    }
}

#[derive(serde::Deserialize)]
struct Wanted<'a> {
    #[serde(borrow)]
    sub: Cow<'a, str>,
}

impl Minter {
    /// With what tokens have to have beside their key, which is the one of the shard's keys at the time.
    pub fn new(auth: Auth) -> Minter {
        Minter { auth }
    }
}

impl Request<'_> {
    /// To GET whether a token would be made and what else the page has to know of the settings, to POST the token.
    pub(in super::super) fn answer_page_token(&mut self, body: &[u8]) -> Result<(), Problem> {
        let allowed = self.check_minting();
        if self.head.method.is_read() {
            let settings = &self.shard.settings;
            let text = serde_json::json!({
                "makes_tokens": allowed.is_ok(),
                "user_claim": *settings.desk.user_claim,
                "heartbeat_s": settings.events.heartbeat.as_secs(),
            });
            self.reply.document(Status::Ok, ContentType::Json, text.to_string().as_bytes());
            return Ok(());
        }
        let minter = allowed?;
        check_asking_page(self.head)?;
        let keys = Arc::clone(self.shard.verifier.borrow().keys());
        let secret = keys.secret().ok_or_else(Problem::internal)?;
        if !self.head.rare("page-token").all(|key| auth::is_page_key(secret, key)) {
            let detail = "Page-Token is not the page's key: open the page at the address with #key= that the server printed last";
            return Err(Problem::new(ProblemKind::PageTokenRefused, detail));
        }
        check_json(self.head)?;
        let wanted: Wanted<'_> = serde_json::from_slice(body)
            .map_err(|error| Problem::invalid_body(format!("the body is {{\"sub\":\"<user>\"}}: {error}")))?;
        let lifetime = Duration::from_secs(PAGE_TOKEN_LIFETIME_S);
        let now = self.shard.clock.unix_seconds();
        let token = auth::mint(secret, &minter.auth, &wanted.sub, lifetime, now).map_err(|error| match error {
            MintError::Subject(reason) => Problem::invalid_body(format!("sub: {}", reason.reason)),
            MintError::Signing(_) => Problem::internal(),
        })?;
        self.reply.document(Status::Ok, ContentType::Json, format!("{{\"token\":\"{token}\"}}").as_bytes());
        Ok(())
    }

    /// Who makes tokens, for whoever asks from this machine.
    fn check_minting(&self) -> Result<Arc<Minter>, Problem> {
        let Some(minter) = &self.shard.settings.desk.minter else {
            return Err(Problem::no_such_path(
                "this server makes no tokens (PAGE_TOKENS); `million-rps token` does, for whoever has its key",
            ));
        };
        check_asker(self.state.socket.peer().map(|peer| peer.ip()), self.head)?;
        Ok(Arc::clone(minter))
    }
}

/// Refuses whoever does not ask from this machine.
fn check_asker(peer: Option<IpAddr>, head: &Head<'_>) -> Result<(), Problem> {
    if asker::is_local(peer, head) {
        return Ok(());
    }
    let detail = "tokens are made for whoever asks from this machine, by a name of its own, without a proxy";
    Err(Problem::new(ProblemKind::PageTokenRefused, detail))
}

/// Refuses what a page of another origin, or a form, has a browser send.
fn check_asking_page(head: &Head<'_>) -> Result<(), Problem> {
    let refused = |detail| Err(Problem::new(ProblemKind::PageTokenRefused, detail));
    if head.rare("page-token").next().is_none() {
        return refused("the page sends the field Page-Token with this request; a form cannot");
    }
    if head.rare("sec-fetch-site").any(|site| site != b"same-origin") {
        return refused("Sec-Fetch-Site names another page than this server's own");
    }
    let is_own = |origin: &[u8]| origin.strip_prefix(b"http://").is_some_and(|host| host == head.authority);
    if !head.rare("origin").all(is_own) {
        return refused("Origin names another page than this server's own");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Parsed, parse_head};

    fn is_refused_by(fields: &str, check: impl Fn(&Head<'_>) -> Result<(), Problem>) -> bool {
        let request = format!("POST /page/token HTTP/1.1\r\nHost: localhost:8080\r\n{fields}\r\n");
        match parse_head(request.as_bytes()) {
            Ok(Parsed::Complete { head, .. }) => check(&head).is_err(),
            other => panic!("{request}: {other:?}"),
        }
    }

    fn is_refused(fields: &str) -> bool {
        is_refused_by(fields, check_asking_page)
    }

    #[test]
    fn no_other_machine_is_given_tokens_whatever_it_sends() {
        let fields = "Page-Token: 1\r\nSec-Fetch-Site: same-origin\r\nOrigin: http://localhost:8080\r\n";
        let is_refused_to = |peer: &str| is_refused_by(fields, |head| check_asker(peer.parse().ok(), head));
        for peer in ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"] {
            assert!(!is_refused_to(peer), "{peer}");
        }
        for peer in ["192.0.2.2", "10.0.0.1", "::ffff:192.0.2.2", "fe80::1", "2001:db8::1", "0.0.0.0", "nobody"] {
            assert!(is_refused_to(peer), "{peer}");
        }
    }

    #[test]
    fn the_servers_own_page_alone_is_given_tokens() {
        let own = "Page-Token: 1\r\n";
        for taken in ["", "Sec-Fetch-Site: same-origin\r\n", "Origin: http://localhost:8080\r\n"] {
            assert!(!is_refused(&format!("{own}{taken}")), "{taken}");
            assert!(is_refused(taken), "without the field: {taken}");
        }
        for refused in [
            "Sec-Fetch-Site: cross-site\r\n",
            "Sec-Fetch-Site: same-site\r\n",
            "Sec-Fetch-Site: none\r\n",
            "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site\r\n",
            "Origin: null\r\n",
            "Origin: https://localhost:8080\r\n",
            "Origin: http://localhost:3000\r\n",
            "Origin: http://localhost\r\n",
            "Origin: http://evil.example\r\n",
            "Origin: http://localhost:8080.evil.example\r\n",
            "Sec-Fetch-Site: same-origin\r\nOrigin: http://evil.example\r\n",
        ] {
            assert!(is_refused(&format!("{own}{refused}")), "{refused}");
        }
    }
}

//! Which pages of other origins may read answers in a browser, and the fields that say so (the Fetch standard, section 3.3).
//!
//! Nothing here needs cookies: a page sends its token in `Authorization`, so credentials are never allowed, and a page that is
//! given no leave can do no more than a program without a token.

use super::head::Head;
use super::route::route;
use crate::limits::CORS_ORIGINS_MAX;

/// The fields of answers that scripts may read, beside those that any script may.
const EXPOSED: &str = "Allow, ETag, Event-Position, Link, Location, Preference-Applied, Retry-After, WWW-Authenticate";
/// The fields that scripts may send: those that mean something here, beside those that any script may.
pub const TAKEN: &str = "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Prefer";

const _: () = assert!(CORS_ORIGINS_MAX + 2 <= u8::MAX as usize, "a grant is a byte");

/// Which of the lines belong into the answers to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grant(u8);

impl Grant {
    /// No lines.
    pub const NONE: Grant = Grant(0);
    /// To whoever is not named; with `*` to everybody.
    const OTHERS: Grant = Grant(1);
    /// The place of the first origin that is named.
    const NAMED: u8 = 2;
}

/// The origins that are set.
#[derive(Debug)]
pub struct Cors {
    origins: Vec<Box<[u8]>>,
    takes_all: bool,
    /// The lines of each grant.
    lines: Vec<Box<[u8]>>,
}

impl Default for Cors {
    fn default() -> Cors {
        Cors::new(&[])
    }
}

impl Cors {
    /// Of these origins; `*` is any, and none turns it off.
    pub fn new(origins: &[String]) -> Cors {
        let takes_all = origins.iter().any(|origin| origin == "*");
        let mut lines = vec![String::new()];
        if takes_all {
            lines.push(granted("*"));
        } else if !origins.is_empty() {
            // Caches have to keep the answers to each origin apart, and those to none.
            lines.push("Vary: Origin\r\n".to_owned());
            lines.extend(origins.iter().map(|origin| granted(origin) + "Vary: Origin\r\n"));
        }
        Cors {
            origins: if takes_all {
                Vec::new()
            } else {
                origins.iter().map(|origin| origin.as_bytes().into()).collect()
            },
            takes_all,
            lines: lines.into_iter().map(|lines| lines.into_bytes().into()).collect(),
        }
    }

    /// What the answers to a request with this head say.
    #[inline]
    pub fn grant(&self, head: &Head<'_>) -> Grant {
        if self.is_off() { Grant::NONE } else { self.look(head) }
    }

    fn look(&self, head: &Head<'_>) -> Grant {
        if !route(head.path).is_for_other_origins() {
            return Grant::NONE;
        }
        let mut origins = head.rare("origin");
        let (Some(origin), None) = (origins.next(), origins.next()) else { return Grant::OTHERS };
        let named = self.origins.iter().position(|named| **named == *origin);
        named.map_or(Grant::OTHERS, |at| Grant(Grant::NAMED + at as u8))
    }

    /// What the answer to a request says whose head could not be read.
    #[inline]
    pub fn unread(&self) -> Grant {
        if self.is_off() { Grant::NONE } else { Grant::OTHERS }
    }

    /// The lines of a grant, each with its end.
    #[inline]
    pub fn lines(&self, grant: Grant) -> &[u8] {
        self.lines.get(usize::from(grant.0)).map_or(&[], |lines| lines)
    }

    /// Whether a browser asks, before the request itself, whether a script may send it, and gets leave.
    pub fn allows_preflight(&self, head: &Head<'_>, grant: Grant) -> bool {
        let is_granted = grant.0 >= Grant::NAMED || (self.takes_all && grant == Grant::OTHERS);
        is_granted
            && head.rare("origin").next().is_some()
            && head.rare("access-control-request-method").next().is_some()
    }

    #[inline]
    fn is_off(&self) -> bool {
        self.lines.len() == 1
    }
}

fn granted(origin: &str) -> String {
    format!("Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Expose-Headers: {EXPOSED}\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Parsed, parse_head};

    fn grant_of(cors: &Cors, target: &str, fields: &str) -> (String, bool) {
        let request = format!("OPTIONS {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let Ok(Parsed::Complete { head, .. }) = parse_head(request.as_bytes()) else { panic!("{request}") };
        let grant = cors.grant(&head);
        let lines = String::from_utf8(cors.lines(grant).to_vec()).expect("ASCII");
        (lines, cors.allows_preflight(&head, grant))
    }

    fn cors(origins: &[&str]) -> Cors {
        Cors::new(&origins.iter().map(|origin| (*origin).to_owned()).collect::<Vec<_>>())
    }

    const ASKS: &str = "Origin: https://a\r\nAccess-Control-Request-Method: PUT\r\n";

    #[test]
    fn off_says_nothing() {
        let off = cors(&[]);
        assert_eq!(grant_of(&off, "/todos", ASKS), (String::new(), false));
        assert_eq!(off.lines(off.unread()), b"");
    }

    #[test]
    fn named_origins_are_compared_byte_by_byte() {
        let cors = cors(&["https://a", "http://b:8080"]);
        for (fields, origin) in [
            ("Origin: https://a\r\n", Some("https://a")),
            ("Origin: http://b:8080\r\n", Some("http://b:8080")),
            ("Origin: https://A\r\n", None),
            ("Origin: https://a.evil\r\n", None),
            ("Origin: https://a:443\r\n", None),
            ("Origin: http://a\r\n", None),
            ("Origin: null\r\n", None),
            ("Origin: https://a\r\nOrigin: https://a\r\n", None),
            ("Origin: https://a http://b:8080\r\n", None),
            ("", None),
        ] {
            let (lines, _) = grant_of(&cors, "/todos", fields);
            assert!(lines.ends_with("Vary: Origin\r\n"), "{fields}: {lines}");
            let expected = origin.map(|origin| format!("Access-Control-Allow-Origin: {origin}\r\n"));
            match expected {
                Some(expected) => assert!(lines.starts_with(&expected), "{fields}: {lines}"),
                None => assert_eq!(lines, "Vary: Origin\r\n", "{fields}"),
            }
        }
        assert_eq!(cors.lines(cors.unread()), b"Vary: Origin\r\n");
    }

    #[test]
    fn a_star_says_the_same_to_everybody() {
        let cors = cors(&["*"]);
        let (lines, _) = grant_of(&cors, "/todos", "");
        assert!(lines.starts_with("Access-Control-Allow-Origin: *\r\n") && !lines.contains("Vary"), "{lines}");
        assert_eq!(grant_of(&cors, "/todos", "Origin: null\r\n").0, lines);
        assert_eq!(cors.lines(cors.unread()), lines.as_bytes());
    }

    #[test]
    fn leave_is_given_to_who_asks_and_is_named() {
        let named = cors(&["https://a"]);
        assert!(grant_of(&named, "/todos", ASKS).1);
        assert!(grant_of(&cors(&["*"]), "/todos", ASKS).1);
        assert!(!grant_of(&named, "/todos", "Origin: https://a\r\n").1, "it is no preflight");
        assert!(!grant_of(&named, "/todos", &ASKS.replace("//a", "//b")).1);
    }

    #[test]
    fn what_is_for_this_machine_is_for_no_other_origin() {
        for cors in [cors(&["https://a"]), cors(&["*"])] {
            for target in ["/page/token", "/ready", "/metrics", "/"] {
                assert_eq!(grant_of(&cors, target, ASKS), (String::new(), false), "{target}");
            }
            for target in ["/todos?limit=1", "/todos/events", "/todos/1", "/openapi.json", "/nowhere", "*"] {
                assert!(grant_of(&cors, target, ASKS).1, "{target}");
            }
        }
    }
}

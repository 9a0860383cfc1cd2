//! The query of `GET /todos/events`: from where, whose, and with how much of the list.

use super::problem::Problem;
use super::query::{decoded, invalid_limit, invalid_user_id, is_named, read_limit, set_once, unknown_parameter};
use crate::limits::USER_ID_MAX_BYTES;

/// What of the changes a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventsQuery {
    /// Begin with as many todos.
    pub limit: Option<usize>,
    /// The todos of this user alone.
    pub user_id: Option<String>,
    /// Go on behind this position, whatever stands there.
    pub last_event_id: Option<Vec<u8>>,
}

/// Reads the query.
///
/// # Errors
/// 400 for a `limit` out of its range, a `user_id` that is none, any of them twice, both together, and any other parameter.
/// A `last_event_id` may be anything: what is no position is an unknown one.
pub fn events_query(query: Option<&[u8]>) -> Result<EventsQuery, Problem> {
    let mut asked = EventsQuery::default();
    for parameter in query.unwrap_or_default().split(|&byte| byte == b'&') {
        let (name, value) = match parameter.iter().position(|&byte| byte == b'=') {
            Some(at) => (&parameter[..at], &parameter[at + 1..]),
            None => (parameter, &b""[..]),
        };
        if is_named(name, b"limit") {
            let limit = read_limit(value).ok_or_else(invalid_limit)?;
            set_once(&mut asked.limit, limit, "limit is given twice")?;
        } else if is_named(name, b"user_id") {
            let user_id = String::from_utf8(decoded(value).collect()).ok();
            let user_id = user_id.filter(|id| !id.is_empty() && id.len() <= USER_ID_MAX_BYTES);
            set_once(&mut asked.user_id, user_id.ok_or_else(invalid_user_id)?, "user_id is given twice")?;
        } else if is_named(name, b"last_event_id") {
            set_once(&mut asked.last_event_id, decoded(value).collect(), "last_event_id is given twice")?;
        } else if !name.is_empty() && name != b"_" {
            const KNOWN: [&str; 3] = ["limit", "user_id", "last_event_id"];
            return Err(unknown_parameter(name, &KNOWN, "the events have limit, user_id and last_event_id"));
        }
    }
    if asked.limit.is_some() && asked.user_id.is_some() {
        return Err(Problem::invalid_parameter(
            "limit begins with a page of the whole list, which is not one user's: leave out limit or user_id",
        ));
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<EventsQuery, u16> {
        events_query(Some(query.as_bytes())).map_err(|problem| problem.status().code())
    }

    #[test]
    fn what_can_be_asked_for() {
        let of = |limit, user_id: Option<&str>, last: Option<&str>| {
            let (user_id, last_event_id) = (user_id.map(str::to_owned), last.map(|last| last.as_bytes().to_vec()));
            Ok(EventsQuery { limit, user_id, last_event_id })
        };
        assert_eq!(events_query(None), Ok(EventsQuery::default()));
        for (query, expected) in [
            ("", of(None, None, None)),
            ("_=1", of(None, None, None)),
            ("limit=10", of(Some(10), None, None)),
            ("user_id=m%C3%A9%20%26", of(None, Some("mé &"), None)),
            ("user%5Fid=a+b", of(None, Some("a+b"), None)),
            ("last_event_id=12-ab", of(None, None, Some("12-ab"))),
            ("last_event_id=", of(None, None, Some(""))),
            ("last_event_id=x&limit=1", of(Some(1), None, Some("x"))),
            ("limit=0", Err(400)),
            ("limit=10001", Err(400)),
            ("limit=1&limit=1", Err(400)),
            ("user_id=", Err(400)),
            ("user_id=%ff", Err(400)),
            ("user_id=a&user_id=a", Err(400)),
            ("last_event_id=a&last_event_id=a", Err(400)),
            ("limit=1&user_id=a", Err(400)),
            ("cursor=a", Err(400)),
            ("userid=a", Err(400)),
        ] {
            assert_eq!(asked(query), expected, "{query}");
        }
        assert_eq!(asked(&format!("user_id={}", "a".repeat(USER_ID_MAX_BYTES + 1))), Err(400));
        let problem = events_query(Some(b"userid=a")).expect_err("unknown");
        assert!(problem.detail.ends_with("user_id was perhaps meant"), "{}", problem.detail);
    }
}

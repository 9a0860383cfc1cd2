//! The query of `GET /todos`: which page of the list, or of a part of it.

use std::borrow::Cow;

use super::problem::Problem;
use super::words::cursor::read_cursor;
use super::words::filter::{Filter, ME, User};
use super::words::syntax::percent_decoded;
use crate::limits::{PAGE_LIMIT_MAX, USER_ID_MAX_BYTES};
use crate::todo::TodoKey;

/// A page of the list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListQuery<'q> {
    /// Most todos to show, 1 to [`PAGE_LIMIT_MAX`]; `None` shows all.
    pub limit: Option<usize>,
    /// Show what follows this place of the list; `None` starts with the newest.
    pub cursor: Option<TodoKey>,
    /// Show only these todos.
    pub filter: Filter<'q>,
}

/// Reads the query of the list.
///
/// # Errors
/// 400 for a `limit` out of its range, a `cursor` that this server has not made, a `user_id` or `completed` that is none, any of
/// them given twice, and any other parameter:
/// without what it asks for, the answer would be another list than the client takes it for. `_` alone means nothing: scripts
/// in browsers send it with a number so that no cache answers.
#[inline]
pub fn list_query(query: Option<&[u8]>) -> Result<ListQuery<'_>, Problem> {
    let mut page = ListQuery::default();
    let Some(query) = query else { return Ok(page) };
    for parameter in query.split(|&byte| byte == b'&') {
        let (name, value) = match parameter.iter().position(|&byte| byte == b'=') {
            Some(at) => (&parameter[..at], &parameter[at + 1..]),
            None => (parameter, &b""[..]),
        };
        if is_named(name, b"limit") {
            let limit = read_limit(value).ok_or_else(invalid_limit)?;
            if page.limit.replace(limit).is_some() {
                return Err(Problem::invalid_parameter("limit is given twice"));
            }
        } else if is_named(name, b"cursor") {
            let cursor = read_cursor(decoded(value)).ok_or_else(invalid_cursor)?;
            if page.cursor.replace(cursor).is_some() {
                return Err(Problem::invalid_parameter("cursor is given twice"));
            }
        } else if is_named(name, b"user_id") {
            let user = read_user(value).ok_or_else(invalid_user_id)?;
            set_once(&mut page.filter.user, user, "user_id is given twice")?;
        } else if is_named(name, b"completed") {
            let completed = read_flag(value).ok_or_else(invalid_completed)?;
            set_once(&mut page.filter.is_marked, completed, "completed is given twice")?;
        } else if !name.is_empty() && name != b"_" {
            return Err(unknown_parameter(
                name,
                &["limit", "cursor", "user_id", "completed"],
                "the list has user_id, completed, limit and cursor, and no other order",
            ));
        }
    }
    Ok(page)
}

/// Reads the query of the number of todos: that of the list, but for its pages.
///
/// # Errors
/// 400 for all that is 400 for the list, and for `limit` and `cursor`.
pub fn count_query(query: Option<&[u8]>) -> Result<Filter<'_>, Problem> {
    let ListQuery { limit, cursor, filter } = list_query(query)?;
    if limit.is_some() || cursor.is_some() {
        return Err(Problem::invalid_parameter("a number has no pages: leave out limit and cursor"));
    }
    Ok(filter)
}

fn read_user(value: &[u8]) -> Option<User<'_>> {
    let name = if value.contains(&b'%') {
        Cow::Owned(String::from_utf8(decoded(value).collect()).ok()?)
    } else {
        Cow::Borrowed(std::str::from_utf8(value).ok()?)
    };
    let is_one = !name.is_empty() && name.len() <= USER_ID_MAX_BYTES;
    is_one.then(|| if name == ME { User::Me } else { User::Named(name) })
}

fn read_flag(value: &[u8]) -> Option<bool> {
    match () {
        () if is_named(value, b"true") => Some(true),
        () if is_named(value, b"false") => Some(false),
        () => None,
    }
}

#[cold]
fn invalid_completed() -> Problem {
    Problem::invalid_parameter("completed must be true or false")
}

pub(super) fn set_once<T>(place: &mut Option<T>, value: T, twice: &'static str) -> Result<(), Problem> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Problem::invalid_parameter(twice)),
    }
}

#[cold]
pub(super) fn invalid_user_id() -> Problem {
    Problem::invalid_parameter(format!(
        "user_id must be 1 to {USER_ID_MAX_BYTES} bytes of UTF-8, percent-encoded where a URI asks for it"
    ))
}

/// Characters of an unknown parameter's name that are shown.
const SHOWN_NAME_MAX_CHARS: usize = 40;

#[cold]
pub(super) fn unknown_parameter(name: &[u8], known: &[&str], has: &str) -> Problem {
    let name: Vec<u8> = decoded(name).collect();
    let name: String = String::from_utf8_lossy(&name).chars().take(SHOWN_NAME_MAX_CHARS).collect();
    let lower_case = name.to_lowercase();
    // Two slips in a word of five or six letters still leave the word.
    let meant = known.iter().find(|known| strsim::osa_distance(&lower_case, known) <= 2);
    let remedy = match meant {
        Some(meant) => format!("{meant} was perhaps meant"),
        None => has.to_owned(),
    };
    Problem::invalid_parameter(format!("the query parameter {name} is not known: {remedy}"))
}

#[cold]
pub(super) fn invalid_limit() -> Problem {
    Problem::invalid_parameter(format!("limit must be a whole number from 1 to {PAGE_LIMIT_MAX}, in decimal digits"))
}

#[cold]
fn invalid_cursor() -> Problem {
    Problem::invalid_parameter(
        "cursor is not one that this server has given out: take it from the Link field of a page",
    )
}

/// The characters of a percent-encoded text. A `+` stays one: only forms write spaces so, and no value here has any.
pub(super) fn decoded(text: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (byte, width) = match percent_decoded(rest) {
            Some(byte) => (byte, 3),
            None => (*rest.first()?, 1),
        };
        rest = &rest[width..];
        Some(byte)
    })
}

pub(super) fn is_named(text: &[u8], name: &[u8]) -> bool {
    text == name || (text.contains(&b'%') && decoded(text).eq(name.iter().copied()))
}

pub(super) fn read_limit(text: &[u8]) -> Option<usize> {
    let limit = decoded(text).try_fold(0usize, |limit, digit| {
        let limit = limit * 10 + usize::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        (limit <= PAGE_LIMIT_MAX).then_some(limit)
    })?;
    (limit > 0).then_some(limit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::words::cursor::encode_cursor;
    use crate::http::words::syntax::UNRESERVED;
    use crate::todo::{Timestamp, TodoId};

    fn limit(query: &str) -> Result<Option<usize>, u16> {
        list_query(Some(query.as_bytes())).map(|page| page.limit).map_err(|problem| problem.status().code())
    }

    #[test]
    fn limits() {
        assert_eq!(list_query(None), Ok(ListQuery::default()));
        let cases = [
            ("", Ok(None)),
            ("&&", Ok(None)),
            ("=&=a&_=1700000000000&_", Ok(None)),
            ("a=b", Err(400)),
            ("limit=1&c", Err(400)),
            ("Limit=1", Err(400)),
            ("limits=1", Err(400)),
            ("__=1", Err(400)),
            ("offset=10", Err(400)),
            ("limit[]=1", Err(400)),
            ("%6c%69mit=1&\u{e9}=1", Err(400)),
            ("limit=1", Ok(Some(1))),
            ("limit=10000", Ok(Some(10_000))),
            ("limit=007", Ok(Some(7))),
            ("_=1&limit=10&_", Ok(Some(10))),
            ("%6cimit=%31%30", Ok(Some(10))),
            ("limit=0", Err(400)),
            ("limit=10001", Err(400)),
            ("limit=99999999999999999999999999", Err(400)),
            ("limit", Err(400)),
            ("limit=", Err(400)),
            ("limit=-1", Err(400)),
            ("limit=+1", Err(400)),
            ("limit=1.0", Err(400)),
            ("limit=1e2", Err(400)),
            ("limit=%201", Err(400)),
            ("limit=ten", Err(400)),
            ("limit=1=1", Err(400)),
            ("limit=%d9%a1", Err(400)),
            ("limit=1&limit=1", Err(400)),
            ("limit=1&%6cimit=2", Err(400)),
        ];
        for (query, expected) in cases {
            assert_eq!(limit(query), expected, "{query}");
        }
        let problem = list_query(Some(b"limit=0")).expect_err("zero");
        assert!(problem.detail.contains("1 to 10000"), "{}", problem.detail);
    }

    #[test]
    fn an_unknown_parameter_is_told_with_the_nearest_one() {
        let detail = |query: &str| list_query(Some(query.as_bytes())).expect_err(query).detail.into_owned();
        for (query, meant) in [
            ("limt=2", "limit"),
            ("LIMIT=2", "limit"),
            ("limits=2", "limit"),
            ("limit%5B%5D=2", "limit"),
            ("curser=x", "cursor"),
            ("crusor=x", "cursor"),
            ("complete=true", "completed"),
            ("userid=a", "user_id"),
        ] {
            assert!(detail(query).ends_with(&format!("{meant} was perhaps meant")), "{}", detail(query));
        }
        assert_eq!(
            detail("offset=10"),
            "the query parameter offset is not known: the list has user_id, completed, limit and cursor, and no other order"
        );
        assert!(detail(&"\u{e9}".repeat(1000)).chars().count() < 150);
    }

    #[test]
    fn filters() {
        let filter = |query: &str| {
            let filter = list_query(Some(query.as_bytes())).map(|page| page.filter);
            let plain = |Filter { user, is_marked: completed }| {
                let user = user.map(|user| match user {
                    User::Me => "(me)".to_owned(),
                    User::Named(name) => name.into_owned(),
                });
                (user, completed)
            };
            filter.map(plain).map_err(|problem| problem.status().code())
        };
        let of = |user: Option<&str>, completed| Ok((user.map(str::to_owned), completed));
        for (query, expected) in [
            ("", of(None, None)),
            ("limit=1", of(None, None)),
            ("completed=true", of(None, Some(true))),
            ("completed=%66alse&_=1", of(None, Some(false))),
            ("user_id=ann", of(Some("ann"), None)),
            ("user_id=a+b&completed=false&limit=3", of(Some("a+b"), Some(false))),
            ("user%5Fid=m%C3%A9%20%26", of(Some("mé &"), None)),
            ("user_id=m\u{e9}", of(Some("mé"), None)),
            ("user_id=me", of(Some("(me)"), None)),
            ("user_id=m%65", of(Some("(me)"), None)),
            ("user_id=Me", of(Some("Me"), None)),
            ("completed=", Err(400)),
            ("completed", Err(400)),
            ("completed=1", Err(400)),
            ("completed=True", Err(400)),
            ("completed=true&completed=true", Err(400)),
            ("user_id=", Err(400)),
            ("user_id", Err(400)),
            ("user_id=%ff", Err(400)),
            ("user_id=a&user_id=b", Err(400)),
            ("User_id=a", Err(400)),
        ] {
            assert_eq!(filter(query), expected, "{query}");
        }
        assert_eq!(filter(&format!("user_id={}", "a".repeat(USER_ID_MAX_BYTES + 1))), Err(400));
        let count =
            |query: &'static str| count_query(Some(query.as_bytes())).map_err(|problem| problem.status().code());
        assert_eq!(count("completed=true"), Ok(Filter { user: None, is_marked: Some(true) }));
        for refused in ["limit=1", "completed=true&limit=1", "offset=1"] {
            assert_eq!(count(refused), Err(400), "{refused}");
        }
    }

    fn key(micros: i64, id: u128) -> TodoKey {
        TodoKey { created_at: Timestamp::from_micros(micros), id: TodoId::from_u128(id) }
    }

    fn cursor(text: &[u8]) -> Result<Option<TodoKey>, u16> {
        let query = [b"cursor=", text].concat();
        list_query(Some(&query)).map(|page| page.cursor).map_err(|problem| problem.status().code())
    }

    #[test]
    fn cursors_that_were_not_given_out_are_refused() {
        let text = encode_cursor(key(1_700_000_000_000_000, 42));
        for refused in
            [&b""[..], b"a", &text[1..], &text[..35], b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &[b'='; 36], &[b'%'; 36]]
        {
            assert_eq!(cursor(refused), Err(400), "{refused:?}");
        }
        assert_eq!(cursor(&[&text[..], b"A"].concat()), Err(400));
        assert_eq!(cursor(&[&text[..], b"="].concat()), Err(400));
        assert_eq!(cursor(&[&text[..], b"&cursor=", &text[..]].concat()), Err(400));
        assert!(text.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
    }

    #[test]
    fn a_changed_character_is_noticed() {
        let text = encode_cursor(key(1_700_000_000_000_000, 42));
        for at in 0..text.len() {
            let mut changed = text;
            changed[at] = if changed[at] == b'B' { b'C' } else { b'B' };
            assert_eq!(cursor(&changed), Err(400), "{at}");
        }
    }

    proptest! {
        #[test]
        fn filters_are_read_back(name in ".{1,40}", completed: Option<bool>) {
            let user = if name == ME { User::Me } else { User::Named(name.as_str().into()) };
            let filter = Filter { user: Some(user), is_marked: completed };
            let mut written = Vec::new();
            filter.write(&mut written);
            prop_assert!(written.iter().all(|byte| UNRESERVED.contains(*byte) || b"%=&".contains(byte)));
            prop_assert_eq!(list_query(Some(&written)).map(|page| page.filter), Ok(filter.clone()));
        }

        #[test]
        fn cursors_are_read_back(micros: i64, id: u128) {
            let key = key(micros, id);
            let text = encode_cursor(key);
            prop_assert_eq!(cursor(&text), Ok(Some(key)));
            let escaped: String = text.iter().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(cursor(escaped.as_bytes()), Ok(Some(key)));
        }

        #[test]
        fn random_queries_never_panic(query in "[%a-z0-9=&]{0,40}|(limit|cursor)=[%0-9A-Fa-f]{0,60}", bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = list_query(Some(query.as_bytes()));
            let _ = list_query(Some(&bytes));
        }
    }
}

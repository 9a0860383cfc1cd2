//! Which resource a path means.

use super::words::method::Method;
use super::words::syntax::{UNRESERVED, percent_decoded};
use crate::todo::{TODO_ID_TEXT_BYTES, TodoId};

/// A resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `/`, the page for people.
    Page,
    /// `/page/token`, a token for the page.
    PageToken,
    /// `/todos`
    Todos,
    /// `/todos/events`
    Events,
    /// `/todos/count`
    Count,
    /// `/todos/{id}`
    Todo(TodoId),
    /// `/todos/{id}` with an id that is none. `/todos/` counts too: the id is missing.
    InvalidTodoId,
    /// `/health`
    Health,
    /// `/ready`
    Ready,
    /// `/metrics`
    Metrics,
    /// `*`, the server itself.
    Server,
    /// Anything else.
    NotFound,
}

const TODO_PREFIX: &[u8] = b"/todos/";
/// The longest path that means something.
const PATH_MAX_BYTES: usize = TODO_PREFIX.len() + TODO_ID_TEXT_BYTES;

/// The resource that `path` means. There is one path for each: another slash at the end, or dots between, is another
/// path. Percent-encoded unreserved characters are the characters themselves (RFC 3986 section 6.2.2.2).
#[inline]
pub fn route(path: &[u8]) -> Route {
    match route_plain(path) {
        Route::NotFound | Route::InvalidTodoId if path.contains(&b'%') => route_encoded(path),
        route => route,
    }
}

/// Whether `path` would mean something without the slash at its end.
pub fn has_slash_too_many(path: &[u8]) -> bool {
    path.strip_suffix(b"/").is_some_and(|bare| {
        !matches!(route(bare), Route::NotFound | Route::InvalidTodoId | Route::Server | Route::Page)
    })
}

fn route_plain(path: &[u8]) -> Route {
    match path {
        b"/todos" => Route::Todos,
        b"/todos/events" => Route::Events,
        b"/todos/count" => Route::Count,
        b"/health" => Route::Health,
        b"/ready" => Route::Ready,
        b"/metrics" => Route::Metrics,
        b"/" => Route::Page,
        b"/page/token" => Route::PageToken,
        b"*" => Route::Server,
        _ => match path.strip_prefix(TODO_PREFIX) {
            Some(id) if !id.contains(&b'/') => route_todo(id),
            _ => Route::NotFound,
        },
    }
}

fn route_todo(id: &[u8]) -> Route {
    let id = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
    id.map_or(Route::InvalidTodoId, Route::Todo)
}

#[cold]
fn route_encoded(path: &[u8]) -> Route {
    // One byte more than anything that means something, so that a longer path still means nothing when cut off there.
    let mut decoded = [0; PATH_MAX_BYTES + 1];
    let (mut from, mut length) = (0, 0);
    while from < path.len() && length < decoded.len() {
        let (byte, width) = match percent_decoded(&path[from..]) {
            Some(byte) if UNRESERVED.contains(byte) => (byte, 3),
            _ => (path[from], 1),
        };
        decoded[length] = byte;
        from += width;
        length += 1;
    }
    match route_plain(&decoded[..length]) {
        Route::InvalidTodoId if path[from..].contains(&b'/') => Route::NotFound,
        route => route,
    }
}

impl Route {
    /// The methods that the resource allows, as the value of `Allow`.
    pub const fn allow(self) -> &'static str {
        match self {
            Route::Todos => "GET, HEAD, POST, OPTIONS",
            Route::Todo(_) | Route::InvalidTodoId => "GET, HEAD, PUT, DELETE, OPTIONS",
            Route::PageToken => "GET, HEAD, POST, OPTIONS",
            Route::Page | Route::Events | Route::Count | Route::Health | Route::Ready | Route::Metrics => {
                "GET, HEAD, OPTIONS"
            }
            Route::Server => "GET, HEAD, POST, PUT, DELETE, OPTIONS",
            Route::NotFound => "",
        }
    }

    /// Whether the resource allows `method`. `*` is a target of OPTIONS only.
    pub const fn allows(self, method: Method) -> bool {
        match (self, method) {
            (Route::NotFound, _) => false,
            (_, Method::Options) => true,
            (Route::Server, _) => false,
            (_, Method::Get | Method::Head) => true,
            (Route::Todos | Route::PageToken, Method::Post) => true,
            (Route::Todo(_) | Route::InvalidTodoId, Method::Put | Method::Delete) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "018f3b2e-7c4d-7a5b-8c9d-0123456789ab";

    #[test]
    fn paths() {
        let todo = || Route::Todo(ID.parse().expect("an id"));
        let cases = [
            ("/todos".to_owned(), Route::Todos),
            ("/health".to_owned(), Route::Health),
            ("/ready".to_owned(), Route::Ready),
            ("/todos/events".to_owned(), Route::Events),
            ("/todos/%65vents".to_owned(), Route::Events),
            ("/todos/count".to_owned(), Route::Count),
            ("/todos/Events".to_owned(), Route::InvalidTodoId),
            ("/todos/events/".to_owned(), Route::NotFound),
            ("/metrics".to_owned(), Route::Metrics),
            ("*".to_owned(), Route::Server),
            ("/%74%6Fdos".to_owned(), Route::Todos),
            ("/%72eady".to_owned(), Route::Ready),
            (format!("/todos/{ID}"), todo()),
            (format!("/todos/{}", ID.to_uppercase()), todo()),
            (format!("/%74odos/%30{}", &ID[1..]), todo()),
            (format!("/todos/{}", ID.replace('-', "%2D")), todo()),
            ("/todos/".to_owned(), Route::InvalidTodoId),
            ("/todos/1".to_owned(), Route::InvalidTodoId),
            ("/todos/%2F".to_owned(), Route::InvalidTodoId),
            (format!("/todos/{ID}0"), Route::InvalidTodoId),
            (format!("/todos/{ID}%30"), Route::InvalidTodoId),
            (format!("/todos/{}", "%61".repeat(1000)), Route::InvalidTodoId),
            (format!("/todos/{}", ID.replace('-', "")), Route::InvalidTodoId),
            (format!("/todos/{{{ID}}}"), Route::InvalidTodoId),
            (format!("/todos/{ID}/"), Route::NotFound),
            (format!("/todos/{}/a", "%61".repeat(1000)), Route::NotFound),
            (format!("/todos%2F{ID}"), Route::NotFound),
            ("/".to_owned(), Route::Page),
            ("/page/token".to_owned(), Route::PageToken),
            ("/%70age/token".to_owned(), Route::PageToken),
            ("/page".to_owned(), Route::NotFound),
            ("/page/".to_owned(), Route::NotFound),
            ("/index.html".to_owned(), Route::NotFound),
            ("//".to_owned(), Route::NotFound),
            ("".to_owned(), Route::NotFound),
            ("/todo".to_owned(), Route::NotFound),
            ("/Todos".to_owned(), Route::NotFound),
            ("/todoss".to_owned(), Route::NotFound),
            ("//todos".to_owned(), Route::NotFound),
            ("/./todos".to_owned(), Route::NotFound),
            ("/health/".to_owned(), Route::NotFound),
            ("/%2A".to_owned(), Route::NotFound),
            ("%2A".to_owned(), Route::NotFound),
        ];
        for (path, expected) in cases {
            assert_eq!(route(path.as_bytes()), expected, "{path}");
        }
    }

    #[test]
    fn a_slash_at_the_end_is_noticed() {
        let todo = format!("/todos/{ID}/");
        for path in
            ["/todos/", "/todos/events/", "/page/token/", "/health/", "/ready/", "/metrics/", "/%74odos/", &todo]
        {
            assert!(has_slash_too_many(path.as_bytes()), "{path}");
        }
        for path in ["/", "//", "*/", "/todos", "/todos//", "/todo/", "/todos/1/", ""] {
            assert!(!has_slash_too_many(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn allow_and_allows_agree() {
        let id = TodoId::from_u128(1);
        let routes = [
            Route::Page,
            Route::PageToken,
            Route::Todos,
            Route::Todo(id),
            Route::InvalidTodoId,
            Route::Events,
            Route::Health,
            Route::Ready,
            Route::Metrics,
            Route::NotFound,
        ];
        for route in routes {
            for name in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
                let listed = route.allow().split(", ").any(|allowed| allowed == name);
                assert_eq!(route.allows(Method::from_name(name.as_bytes())), listed, "{route:?} {name}");
            }
        }
        assert!(Route::Server.allows(Method::Options) && !Route::Server.allows(Method::Get));
    }
}

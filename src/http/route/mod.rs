//! The table of routes: which resource a path means, what it allows, and what there is to say of it. Routing, `Allow`, the
//! document of OpenAPI, the pages below `/docs` and README's table are made of it.

mod documents;
mod fields;
mod operation;
mod todos;

pub use self::fields::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CHALLENGE, CHALLENGE_AT_TIMES, FIELDS, ID, RETRY_AFTER,
    RETRY_AFTER_AT_TIMES, TYPE,
};
use self::operation::methods_of;
pub use self::operation::{
    ANY_REQUEST, Answer, Content, Field, NO_OPERATION, Operation, Parameter, Place, Token, Value,
};
use super::words::method::{Method, Methods};
use super::words::problem_kind::ProblemKind;
use super::words::syntax::{UNRESERVED, percent_decoded};
use crate::todo::TodoId;

/// A resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `/`, the page for people.
    Page,
    /// `/page/token`, a token for the page.
    PageToken,
    /// `/todos`
    Todos,
    /// `/todos/count`
    Count,
    /// `/todos/events`
    Events,
    /// `/todos/{id}`
    Todo(TodoId),
    /// `/todos/{id}` with an id that is none. `/todos/` counts too: the id is missing.
    InvalidTodoId,
    /// `/openapi.json`
    OpenApi,
    /// `/docs`
    Docs,
    /// `/docs/problems`
    Problems,
    /// `/docs/problems/{type}`
    Problem(ProblemKind),
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

/// A row of the table.
#[derive(Debug)]
pub struct Resource {
    /// Its path, with its variable in braces.
    pub path: &'static str,
    /// What its path means.
    means: Means,
    /// What can be done with it.
    pub operations: &'static [Operation],
    /// The methods of those.
    pub methods: Methods,
}

/// What the path of a row means.
#[derive(Debug)]
enum Means {
    /// The path is this.
    This(Route),
    /// The path has a variable at its end: what it means with this one.
    Each(&'static Parameter, fn(&[u8]) -> Route),
}

impl Resource {
    const fn at(path: &'static str, route: Route, operations: &'static [Operation]) -> Resource {
        Resource { path, means: Means::This(route), operations, methods: methods_of(operations) }
    }

    const fn each(
        path: &'static str,
        variable: &'static Parameter,
        read: fn(&[u8]) -> Route,
        operations: &'static [Operation],
    ) -> Resource {
        Resource { path, means: Means::Each(variable, read), operations, methods: methods_of(operations) }
    }

    /// The parameter in its path.
    pub fn variable(&self) -> Option<&'static Parameter> {
        match self.means {
            Means::This(_) => None,
            Means::Each(variable, _) => Some(variable),
        }
    }

    /// What `path` means, if it is one of this row.
    fn route(&self, path: &[u8]) -> Option<Route> {
        match self.means {
            Means::This(route) => (path == self.path.as_bytes()).then_some(route),
            Means::Each(_, read) => {
                let before = self.path.find('{').unwrap_or(self.path.len());
                let variable = path.strip_prefix(&self.path.as_bytes()[..before])?;
                (!variable.contains(&b'/')).then(|| read(variable))
            }
        }
    }
}

/// Every resource. A path is that of the first row that has it; what is asked for most stands first.
pub static RESOURCES: &[Resource] = &[
    Resource::at("/todos", Route::Todos, todos::LIST),
    Resource::at("/todos/count", Route::Count, todos::COUNT),
    Resource::at("/todos/events", Route::Events, todos::EVENTS),
    Resource::each("/todos/{id}", &ID, route_todo, todos::TODO),
    Resource::at("/", Route::Page, documents::PAGE),
    Resource::at("/health", Route::Health, documents::HEALTH),
    Resource::at("/ready", Route::Ready, documents::READY),
    Resource::at("/metrics", Route::Metrics, documents::METRICS),
    Resource::at("/openapi.json", Route::OpenApi, documents::OPENAPI),
    Resource::at("/docs", Route::Docs, documents::DOCS),
    Resource::at("/docs/problems", Route::Problems, documents::PROBLEMS),
    Resource::each("/docs/problems/{type}", &TYPE, route_problem, documents::PROBLEM),
    Resource::at("/page/token", Route::PageToken, documents::PAGE_TOKENS),
];

/// Longer than any path that means something.
const PATH_MAX_BYTES: usize = 64;

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
        b"*" => Route::Server,
        _ => RESOURCES.iter().find_map(|resource| resource.route(path)).unwrap_or(Route::NotFound),
    }
}

fn route_todo(id: &[u8]) -> Route {
    let id = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
    id.map_or(Route::InvalidTodoId, Route::Todo)
}

fn route_problem(slug: &[u8]) -> Route {
    ProblemKind::from_slug(slug).map_or(Route::NotFound, Route::Problem)
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
    /// The row of the resource.
    fn resource(self) -> Option<&'static Resource> {
        RESOURCES.iter().find(|resource| match (&resource.means, self) {
            (Means::This(route), _) => *route == self,
            (Means::Each(variable, _), Route::Todo(_) | Route::InvalidTodoId) => variable.name == ID.name,
            (Means::Each(variable, _), Route::Problem(_)) => variable.name == TYPE.name,
            _ => false,
        })
    }

    /// The methods that the resource allows; of the server itself, those that any resource does.
    pub fn allow(self) -> Methods {
        match self {
            Route::Server => RESOURCES.iter().fold(Methods::NONE, |all, resource| all.and(resource.methods)),
            route => route.resource().map_or(Methods::NONE, |resource| resource.methods),
        }
    }

    /// Whether pages of other origins may be let read it (`CORS_ORIGINS`). What this machine alone sees in full, and what gives
    /// tokens to whoever sits at it, is for none: a browser that runs here asks from here.
    pub fn is_for_other_origins(self) -> bool {
        !matches!(self, Route::Page | Route::PageToken | Route::Ready | Route::Metrics)
    }

    /// Whether the resource allows `method`. `*` is a target of OPTIONS only.
    pub fn allows(self, method: Method) -> bool {
        match self {
            Route::Server => method == Method::Options,
            route => route.allow().has(method),
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
            ("/todos/count".to_owned(), Route::Count),
            ("/todos/events".to_owned(), Route::Events),
            ("/todos/%65vents".to_owned(), Route::Events),
            ("/todos/Events".to_owned(), Route::InvalidTodoId),
            ("/todos/events/".to_owned(), Route::NotFound),
            ("/metrics".to_owned(), Route::Metrics),
            ("/openapi.json".to_owned(), Route::OpenApi),
            ("/docs".to_owned(), Route::Docs),
            ("/docs/problems/".to_owned(), Route::NotFound),
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
    fn resources_allow_what_the_table_has() {
        for (path, allow) in [
            ("/todos", "GET, HEAD, POST, OPTIONS"),
            ("/todos/1", "GET, HEAD, PUT, DELETE, OPTIONS"),
            ("/todos/01900000-0000-7000-8000-000000000001", "GET, HEAD, PUT, DELETE, OPTIONS"),
            ("/page/token", "GET, HEAD, POST, OPTIONS"),
            ("/docs/problems/no-such-todo", "GET, HEAD, OPTIONS"),
            ("/health", "GET, HEAD, OPTIONS"),
            ("*", "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
            ("/nowhere", ""),
        ] {
            let route = route(path.as_bytes());
            assert_eq!(route.allow().to_string(), allow, "{path}");
            for name in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
                let is_listed = allow.split(", ").any(|allowed| allowed == name);
                let is_allowed = if path == "*" { name == "OPTIONS" } else { is_listed };
                assert_eq!(route.allows(Method::from_name(name.as_bytes())), is_allowed, "{path} {name}");
            }
        }
    }

    #[test]
    fn each_row_has_a_path_of_its_own_that_leads_to_it() {
        for resource in RESOURCES {
            let path = match resource.variable() {
                Some(variable) => resource.path.replace(&format!("{{{}}}", variable.name), variable.example),
                None => resource.path.to_owned(),
            };
            assert!(path.len() < PATH_MAX_BYTES, "{path}");
            let found = route(path.as_bytes()).resource().expect("a row");
            assert_eq!(found.path, resource.path);
            assert!(!resource.operations.is_empty());
        }
        assert!(ProblemKind::ALL.iter().all(|kind| kind.reference().len() < PATH_MAX_BYTES));
        for kind in ProblemKind::ALL {
            assert_eq!(route(kind.reference().as_bytes()), Route::Problem(*kind));
        }
        assert_eq!(route(b"/docs/problems/nothing"), Route::NotFound);
    }
}

//! Request methods.

use std::fmt;

/// A request method (RFC 9110 section 9); names are case-sensitive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// OPTIONS
    Options,
    /// PATCH (RFC 5789): known, but no resource here allows it, so 405.
    Patch,
    /// QUERY, a GET with a body: known, but no resource here allows it, so 405.
    Query,
    /// TRACE: known, but no resource here allows it, so 405; it would show a client's own secrets to its scripts.
    Trace,
    /// CONNECT: [`crate::http::parse_head`] refuses it, because what follows it may be a tunnel's bytes.
    Connect,
    /// Another token, answered with 501.
    Other,
}

impl Method {
    /// The method with this name; [`Method::Other`] for every other token.
    pub fn from_name(name: &[u8]) -> Method {
        match name {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"OPTIONS" => Method::Options,
            b"PATCH" => Method::Patch,
            b"QUERY" => Method::Query,
            b"TRACE" => Method::Trace,
            b"CONNECT" => Method::Connect,
            _ => Method::Other,
        }
    }

    /// The name; `None` for [`Method::Other`], which has forgotten it.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Method::Get => Some("GET"),
            Method::Head => Some("HEAD"),
            Method::Post => Some("POST"),
            Method::Put => Some("PUT"),
            Method::Delete => Some("DELETE"),
            Method::Options => Some("OPTIONS"),
            Method::Patch => Some("PATCH"),
            Method::Query => Some("QUERY"),
            Method::Trace => Some("TRACE"),
            Method::Connect => Some("CONNECT"),
            Method::Other => None,
        }
    }

    /// Whether the method only reads: GET and HEAD.
    pub const fn is_read(self) -> bool {
        matches!(self, Method::Get | Method::Head)
    }
}

/// The methods that a resource allows; written as in `Allow`, which a 405 must have (RFC 9110 section 15.5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Methods(u16);

impl Methods {
    /// In the order in which they are written.
    const WRITTEN: [Method; 6] =
        [Method::Get, Method::Head, Method::Post, Method::Put, Method::Delete, Method::Options];

    /// None.
    pub const NONE: Methods = Methods(0);

    /// These, and this one.
    pub const fn with(self, method: Method) -> Methods {
        Methods(self.0 | 1 << method as u16)
    }

    /// All of both.
    pub const fn and(self, others: Methods) -> Methods {
        Methods(self.0 | others.0)
    }

    /// Whether this is one of them.
    pub const fn has(self, method: Method) -> bool {
        self.0 & 1 << method as u16 != 0
    }
}

impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Self::WRITTEN.into_iter().filter(|method| self.has(*method)).filter_map(Method::name);
        for (at, name) in names.enumerate() {
            write!(f, "{}{name}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_are_case_sensitive() {
        for name in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "QUERY", "TRACE", "CONNECT"] {
            assert_eq!(Method::from_name(name.as_bytes()).name(), Some(name));
            assert_eq!(Method::from_name(name.to_lowercase().as_bytes()), Method::Other);
        }
        assert_eq!(Method::Other.name(), None);
    }
}

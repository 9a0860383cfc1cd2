//! Request methods.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_are_case_sensitive() {
        for name in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"] {
            assert_eq!(Method::from_name(name.as_bytes()).name(), Some(name));
            assert_eq!(Method::from_name(name.to_lowercase().as_bytes()), Method::Other);
        }
        assert_eq!(Method::Other.name(), None);
    }
}

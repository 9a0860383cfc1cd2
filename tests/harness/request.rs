//! Requests, as bytes.

/// A well-formed request; what is meant to be malformed is written out by its test.
#[derive(Debug, Clone)]
pub struct Request {
    method: &'static str,
    target: String,
    fields: String,
    body: Vec<u8>,
    has_length: bool,
}

/// A GET of `target`.
pub fn get(target: impl Into<String>) -> Request {
    Request::new("GET", target)
}

/// A POST to `/todos` with this body, as JSON.
pub fn post(token: &str, body: impl Into<Vec<u8>>) -> Request {
    Request::new("POST", "/todos").token(token).json(body)
}

/// A PUT of this todo with this body, as JSON.
pub fn put(token: &str, id: &str, body: impl Into<Vec<u8>>) -> Request {
    Request::new("PUT", format!("/todos/{id}")).token(token).json(body)
}

/// A DELETE of this todo.
pub fn delete(token: &str, id: &str) -> Request {
    Request::new("DELETE", format!("/todos/{id}")).token(token)
}

impl Request {
    /// A request without body.
    pub fn new(method: &'static str, target: impl Into<String>) -> Request {
        Request { method, target: target.into(), fields: String::new(), body: Vec::new(), has_length: false }
    }

    /// Adds a header field.
    pub fn field(mut self, name: &str, value: &str) -> Request {
        self.fields.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// Adds the bearer token.
    pub fn token(self, token: &str) -> Request {
        self.field("Authorization", &format!("Bearer {token}"))
    }

    /// Adds a body of any type, with its length.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = body.into();
        self.has_length = true;
        self
    }

    /// Adds a JSON body.
    pub fn json(self, body: impl Into<Vec<u8>>) -> Request {
        self.field("Content-Type", "application/json").body(body)
    }

    /// Asks for the end of the connection.
    pub fn close(self) -> Request {
        self.field("Connection", "close")
    }

    /// Whether the answer has no body whatever its fields say.
    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// The request as it stands on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes =
            format!("{} {} HTTP/1.1\r\nHost: localhost\r\n{}", self.method, self.target, self.fields).into_bytes();
        if self.has_length {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// A body in chunks of these sizes, the rest in one, with the last chunk.
pub fn chunked(body: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut rest = body;
    let mut encoded = Vec::new();
    for size in sizes.iter().copied().chain([usize::MAX]) {
        let (chunk, left) = rest.split_at(size.min(rest.len()));
        if !chunk.is_empty() {
            encoded.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            encoded.extend_from_slice(chunk);
            encoded.extend_from_slice(b"\r\n");
        }
        rest = left;
    }
    encoded.extend_from_slice(b"0\r\n\r\n");
    encoded
}

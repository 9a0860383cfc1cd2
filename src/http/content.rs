//! Whether a body may be read as JSON (RFC 9110 sections 8.3 and 8.4).

use super::head::Head;
use super::problem::{Hint, Problem};
use super::words::problem_kind::ProblemKind;
use super::words::syntax::{list_elements, trim};

/// Checks `Content-Type` and `Content-Encoding` of a request with a JSON body.
///
/// `application/json` is accepted, with any parameters, but `charset` has to be UTF-8 (RFC 8259 section 8.1), which many
/// write without its hyphen. So are a missing type and what clients send that were never told one (`curl -d`, `fetch` with a
/// text): the original never looks at it, and a body that is no JSON is refused all the same. Browsers send these types to
/// other sites without asking first, but never with an `Authorization` of their own, without which there is no write.
///
/// Other types are 415: the client says that it sent another format. So is `application/*+json`: such a type means more than
/// its syntax, as `application/merge-patch+json` does, and reading it as plain JSON would ignore what the client said.
///
/// # Errors
/// 415 (Unsupported Media Type).
pub fn check_json(head: &Head<'_>) -> Result<(), Problem> {
    if head.content_encoding().flat_map(list_elements).any(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        let detail = "the body has a Content-Encoding; send it without";
        return Err(Problem::new(ProblemKind::UnsupportedMediaType, detail).with_hint(Hint::AcceptEncodingIdentity));
    }
    if head.content_type().is_some_and(|value| !is_json(value)) {
        let detail = "Content-Type must be application/json (charset utf-8)";
        return Err(Problem::new(ProblemKind::UnsupportedMediaType, detail));
    }
    Ok(())
}

/// The second and third are what HTTP clients send by themselves with a body of text.
const TAKEN_FOR_JSON: [&str; 4] = ["application/json", "application/x-www-form-urlencoded", "text/plain", "text/json"];

fn is_json(value: &[u8]) -> bool {
    let mut parts = value.split(|&byte| byte == b';').map(trim);
    let is_type = parts
        .next()
        .is_some_and(|media_type| TAKEN_FOR_JSON.iter().any(|taken| media_type.eq_ignore_ascii_case(taken.as_bytes())));
    is_type
        && parts.all(|parameter| match parameter.split_first_chunk::<8>() {
            Some((name, charset)) if name.eq_ignore_ascii_case(b"charset=") => {
                let quoted = charset.strip_prefix(b"\"").and_then(|charset| charset.strip_suffix(b"\""));
                let charset = quoted.unwrap_or(charset);
                charset.eq_ignore_ascii_case(b"utf-8") || charset.eq_ignore_ascii_case(b"utf8")
            }
            _ => true,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Parsed, parse_head};

    fn status(fields: &str) -> Option<u16> {
        let request = format!("POST /todos HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        match parse_head(request.as_bytes()) {
            Ok(Parsed::Complete { head, .. }) => check_json(&head).err().map(|problem| problem.status().code()),
            other => panic!("{request}: {other:?}"),
        }
    }

    #[test]
    fn content_types() {
        let accepted = [
            "",
            "Content-Type: application/json\r\n",
            "content-type: Application/JSON\r\n",
            "Content-Type: application/json;charset=utf-8\r\n",
            "Content-Type: application/json ; Charset=\"UTF-8\"\r\n",
            "Content-Type: application/json; profile=x; charset=UTF-8;\r\n",
            "Content-Type: application/json; charset=utf8\r\n",
            "Content-Type: application/json; charset=\"UTF8\"\r\n",
            "Content-Type: application/x-www-form-urlencoded\r\n",
            "Content-Type: text/plain;charset=UTF-8\r\n",
            "Content-Type: Text/JSON\r\n",
        ];
        for fields in accepted {
            assert_eq!(status(fields), None, "{fields}");
        }
        let refused = [
            "Content-Type:\r\n",
            "Content-Type: text/plain; charset=latin1\r\n",
            "Content-Type: text/html\r\n",
            "Content-Type: multipart/form-data; boundary=x\r\n",
            "Content-Type: application/xml\r\n",
            "Content-Type: application/jsonx\r\n",
            "Content-Type: application/json, text/plain\r\n",
            "Content-Type: application/merge-patch+json\r\n",
            "Content-Type: application/json; charset=iso-8859-1\r\n",
            "Content-Type: application/json; charset=\r\n",
            "Content-Type: application/json; charset=\"utf8\r\n",
            "Content-Type: application/json; charset=utf-16\r\n",
            "Content-Type: ; charset=utf-8\r\n",
        ];
        for fields in refused {
            assert_eq!(status(fields), Some(415), "{fields}");
        }
    }

    #[test]
    fn content_encodings() {
        assert_eq!(status("Content-Encoding: identity\r\n"), None);
        assert_eq!(status("Content-Encoding:\r\n"), None);
        assert_eq!(status("Content-Encoding: gzip\r\n"), Some(415));
        assert_eq!(status("Content-Encoding: identity, br\r\n"), Some(415));
        assert_eq!(status("Content-Encoding: identity\r\nX: y\r\nContent-Encoding: br\r\n"), Some(415));
    }
}

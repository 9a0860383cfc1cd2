//! Requests that differ from one another, as those of real clients do.

/// What comes first of these requests, and what next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// One after the other, again and again.
    Turn,
    /// Any of them.
    Random,
}

/// Requests that a load is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requests {
    /// Their texts, none of which has a body.
    pub texts: Vec<String>,
    /// See there.
    pub order: Order,
}

/// The fields that clients send by themselves, behind `Host`.
const CLIENTS: [(&str, &[&str]); 8] = [
    (
        "Chrome",
        &[
            "Connection: keep-alive",
            "sec-ch-ua-platform: \"Windows\"",
            "User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
            "sec-ch-ua: \"Chromium\";v=\"142\", \"Google Chrome\";v=\"142\", \"Not_A Brand\";v=\"99\"",
            "sec-ch-ua-mobile: ?0",
            "Accept: */*",
            "Sec-Fetch-Site: same-origin",
            "Sec-Fetch-Mode: cors",
            "Sec-Fetch-Dest: empty",
            "Referer: http://localhost:8080/",
            "Accept-Encoding: gzip, deflate, br, zstd",
            "Accept-Language: en-US,en;q=0.9",
        ],
    ),
    (
        "Firefox",
        &[
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
            "Accept: */*",
            "Accept-Language: de,en-US;q=0.7,en;q=0.3",
            "Accept-Encoding: gzip, deflate, br, zstd",
            "Referer: http://localhost:8080/",
            "Connection: keep-alive",
            "Sec-Fetch-Dest: empty",
            "Sec-Fetch-Mode: cors",
            "Sec-Fetch-Site: same-origin",
            "Priority: u=4",
        ],
    ),
    (
        "Safari on a phone",
        &[
            "Accept: */*",
            "Sec-Fetch-Site: same-origin",
            "Accept-Language: fr-FR,fr;q=0.9",
            "Accept-Encoding: gzip, deflate",
            "Sec-Fetch-Mode: cors",
            "User-Agent: Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Mobile/15E148 Safari/604.1",
            "Referer: http://localhost:8080/",
            "Connection: keep-alive",
            "Sec-Fetch-Dest: empty",
        ],
    ),
    ("curl", &["User-Agent: curl/8.14.1", "Accept: */*"]),
    ("okhttp", &["Connection: Keep-Alive", "Accept-Encoding: gzip", "User-Agent: okhttp/5.1.0"]),
    ("Go", &["User-Agent: Go-http-client/1.1", "Accept-Encoding: gzip"]),
    (
        "Python",
        &[
            "User-Agent: python-requests/2.32.5",
            "Accept-Encoding: gzip, deflate",
            "Accept: */*",
            "Connection: keep-alive",
        ],
    ),
    (
        "axios",
        &[
            "Accept: application/json, text/plain, */*",
            "User-Agent: axios/1.13.2",
            "Accept-Encoding: gzip, compress, deflate, br",
            "Connection: keep-alive",
        ],
    ),
];
/// The largest limit of [`random_limits`].
const LIMIT_MAX: usize = 100;
/// Bytes of a head of [`cookies`].
const COOKIE_HEAD_BYTES: usize = 1_500;

fn request(target: &str, fields: &[&str]) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("GET {target} HTTP/1.1\r\nHost: localhost:8080\r\n{fields}\r\n")
}

/// One request of each of eight clients, all for the same target.
pub fn clients(target: &str) -> Requests {
    Requests { texts: CLIENTS.iter().map(|(_, fields)| request(target, fields)).collect(), order: Order::Turn }
}

/// Requests for the first page that differ in its limit, 1 to 100.
pub fn random_limits() -> Requests {
    let of_limit = |limit| request(&format!("/todos?limit={limit}"), &[]);
    Requests { texts: (1..=LIMIT_MAX).map(of_limit).collect(), order: Order::Random }
}

/// A browser's request with cookies, another for each of so many connections.
pub fn cookies(target: &str, connections: usize) -> Requests {
    let agent = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";
    let rest = COOKIE_HEAD_BYTES - request(target, &[agent, "Cookie: "]).len();
    let of_connection = |connection: usize| {
        let mut cookie = format!("Cookie: session={connection:08x}");
        while cookie.len() < "Cookie: ".len() + rest {
            cookie.push_str(&format!(
                "; preference{:03}={:016x}",
                cookie.len(),
                connection.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ));
        }
        cookie.truncate("Cookie: ".len() + rest);
        request(target, &[agent, &cookie])
    };
    Requests { texts: (0..connections).map(of_connection).collect(), order: Order::Turn }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_request_is_like_another() {
        for (requests, count) in [(clients("/todos?limit=10"), 8), (random_limits(), 100), (cookies("/todos", 64), 64)]
        {
            assert_eq!(requests.texts.iter().collect::<BTreeSet<_>>().len(), count);
            for text in &requests.texts {
                assert!(text.starts_with("GET /todos") && text.matches("\r\n\r\n").count() == 1, "{text:?}");
            }
        }
        assert!(cookies("/todos", 3).texts.iter().all(|text| text.len() == COOKIE_HEAD_BYTES));
    }
}

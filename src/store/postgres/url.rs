//! `DATABASE_URL`, as psql takes it: the options that the client library does not know are read here, with libpq's meanings.
//!
//! An option is honoured, or it asks for what is the case anyway, or it is refused by its name: none is passed over in silence.

use crate::store::StoreError;
use crate::store::postgres::error::refused;
use crate::store::postgres::tls::{ClientCertificate, TlsMode};

/// Options that the client library reads, under libpq's names.
const OF_THE_LIBRARY: [&str; 17] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "password",
    "port",
    "sslnegotiation",
    "tcp_user_timeout",
    "user",
];

/// What a URL says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PostgresUrl {
    /// For the client library.
    pub url: String,
    pub tls: TlsMode,
    /// Who this is, where the server asks for a certificate.
    pub certificate: Option<ClientCertificate>,
}

impl PostgresUrl {
    /// Takes the URL apart.
    ///
    /// # Errors
    /// [`StoreError::Fatal`] names the option, never the URL: it may hold a password.
    pub fn read(url: &str) -> Result<PostgresUrl, StoreError> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut root_file, mut certificate_file, mut key_file) = (None, None, None, None);
        let mut others = Vec::new();
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
                return Err(refused(
                    "has a ? with something other than options behind it; in a password it is written %3F",
                ));
            }
            let value = decoded(value)?;
            match name {
                "sslmode" => mode = Some(value),
                "sslrootcert" => root_file = Some(value),
                "sslcert" => certificate_file = Some(value),
                "sslkey" => key_file = Some(value),
                "client_encoding" => check_encoding(&value)?,
                "gssencmode" => check_gss(&value)?,
                "target_session_attrs" => others.push(format!("{name}={}", session_attributes(&value)?)),
                "keepalives_count" => others.push(option.replacen("keepalives_count", "keepalives_retries", 1)),
                "sslpassword" => {
                    return Err(refused(
                        "sslpassword: a key with a password is not read; take it off (openssl pkey -in KEY -out NEW) and give \
                         sslkey alone",
                    ));
                }
                // What stands before the last @ may be a part of a password.
                _ if query.contains('@') && !OF_THE_LIBRARY.contains(&name) => {
                    return Err(refused("has a ? before an @; in a password it is written %3F"));
                }
                known if OF_THE_LIBRARY.contains(&known) => others.push(option.to_owned()),
                unknown => {
                    return Err(refused(&format!(
                        "the option {unknown} is not known here, and is not passed over: leave it out, or see the README for \
                         those that are"
                    )));
                }
            }
        }
        let certificate = match (certificate_file, key_file) {
            (Some(certificate), Some(key)) => Some(ClientCertificate { certificate, key }),
            (None, None) => None,
            _ => return Err(refused("sslcert and sslkey go together, and one is missing")),
        };
        let tls = TlsMode::read(mode.as_deref().unwrap_or("prefer"), root_file)?;
        let url = if others.is_empty() { base.to_owned() } else { format!("{base}?{}", others.join("&")) };
        Ok(PostgresUrl { url, tls, certificate })
    }
}

fn check_encoding(value: &str) -> Result<(), StoreError> {
    let name = value.to_ascii_lowercase().replace(['-', '_'], "");
    // `auto` is the encoding of the surroundings, and texts here are UTF-8.
    if matches!(name.as_str(), "utf8" | "unicode" | "auto") {
        return Ok(());
    }
    Err(refused("client_encoding: texts are sent and read as UTF-8, whatever the database has; leave the option out"))
}

fn check_gss(value: &str) -> Result<(), StoreError> {
    match value {
        "disable" | "prefer" => Ok(()),
        "require" => Err(refused("gssencmode=require: there is no GSSAPI here; use TLS (sslmode=verify-full)")),
        _ => Err(refused("gssencmode is disable, prefer or require")),
    }
}

/// The library's word for it. Whoever writes needs a server that takes writes.
fn session_attributes(value: &str) -> Result<&'static str, StoreError> {
    match value {
        "any" => Ok("any"),
        "read-write" | "primary" => Ok("read-write"),
        "read-only" | "standby" | "prefer-standby" => Err(refused(
            "target_session_attrs asks for a server that takes no writes, and this program writes; use read-write or any",
        )),
        _ => Err(refused("target_session_attrs is any, read-write or primary")),
    }
}

/// A value without its percent-encoding.
fn decoded(value: &str) -> Result<String, StoreError> {
    let invalid = || refused("an option has a % without two hexadecimal digits, or bytes that are no UTF-8");
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.split_at_checked(2).and_then(|(digits, behind)| {
            rest = behind;
            std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
        });
        bytes.push(digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or_else(invalid)?);
    }
    String::from_utf8(bytes).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> PostgresUrl {
        PostgresUrl::read(url).expect("a usable URL")
    }

    #[test]
    fn options_of_tls_leave_the_url_and_get_their_meaning() {
        let tls = |url| (read(url).url, read(url).tls);
        assert_eq!(tls("postgres://h/d"), ("postgres://h/d".into(), TlsMode::Prefer));
        assert_eq!(tls("postgres://h/d?sslmode=disable"), ("postgres://h/d".into(), TlsMode::Disable));
        assert_eq!(
            tls("postgres://h/d?connect_timeout=3&sslmode=verify-full&sslrootcert=%2Fetc%2Froot%20ca.pem"),
            ("postgres://h/d?connect_timeout=3".into(), TlsMode::Verify { root_file: Some("/etc/root ca.pem".into()) })
        );
        assert_eq!(read("postgres://h/d?sslmode=require").tls, TlsMode::Require);
        let certificate = ClientCertificate { certificate: "/a b.pem".into(), key: "/k.pem".into() };
        assert_eq!(read("postgres://h/d?sslcert=/a%20b.pem&sslkey=/k.pem").certificate, Some(certificate));
    }

    #[test]
    fn options_that_psql_takes_are_taken() {
        for (url, expected) in [
            ("postgres://h/d?client_encoding=UTF8", "postgres://h/d"),
            ("postgres://h/d?client_encoding=utf-8&gssencmode=disable", "postgres://h/d"),
            ("postgres://h/d?client_encoding=auto&gssencmode=prefer", "postgres://h/d"),
            ("postgres://a,b/d?target_session_attrs=read-write", "postgres://a,b/d?target_session_attrs=read-write"),
            ("postgres://a,b/d?target_session_attrs=primary", "postgres://a,b/d?target_session_attrs=read-write"),
            ("postgres://h/d?keepalives_count=3", "postgres://h/d?keepalives_retries=3"),
            ("postgres:///d?host=/run/postgresql&port=5433", "postgres:///d?host=/run/postgresql&port=5433"),
            (
                "postgres://h/d?application_name=a%26b&options=-c%20x%3D1",
                "postgres://h/d?application_name=a%26b&options=-c%20x%3D1",
            ),
        ] {
            assert_eq!(read(url).url, expected, "{url}");
        }
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_its_name() {
        for (url, named) in [
            ("postgres://h/d?sslmode=maybe", "sslmode=maybe"),
            ("postgres://h/d?sslcert=/c.pem", "sslcert and sslkey"),
            ("postgres://h/d?sslkey=/k.pem", "sslcert and sslkey"),
            ("postgres://h/d?sslpassword=hunter2", "sslpassword"),
            ("postgres://h/d?client_encoding=latin1", "client_encoding"),
            ("postgres://h/d?gssencmode=require", "gssencmode=require"),
            ("postgres://h/d?target_session_attrs=standby", "target_session_attrs"),
            ("postgres://h/d?target_session_attrs=read-only", "target_session_attrs"),
            ("postgres://h/d?sslcrl=/crl.pem", "sslcrl"),
            ("postgres://h/d?service=x", "service"),
            ("postgres://h/d?sslrootcert=%zz", "hexadecimal"),
            ("postgres://me:hun?ter2@h/d", "%3F"),
            ("postgres://me:hun?ter2@h/d?sslmode=require", "%3F"),
            ("postgres://me:a?hun=ter2@h/d", "%3F"),
        ] {
            let Err(StoreError::Fatal(text)) = PostgresUrl::read(url) else { panic!("{url}") };
            assert!(text.starts_with("DATABASE_URL cannot be used: ") && text.contains(named), "{url}: {text}");
            assert!(!text.contains("hun") && !text.contains("ter2"), "{text}");
        }
    }
}

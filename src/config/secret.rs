//! Texts that are used but never shown.

use std::fmt;

/// What stands in the place of something secret.
const MASK: &str = "***";

/// A secret. It has no `Display`, and its `Debug` shows nothing of it; whoever needs it says so with
/// [`Secret::expose`].
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret into safe keeping.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({MASK})")
    }
}

/// A URL that may carry a password: printed without it.
#[derive(Clone)]
pub struct ConnectionUrl(String);

impl ConnectionUrl {
    /// Takes a URL into safe keeping.
    pub fn new(url: impl Into<String>) -> ConnectionUrl {
        ConnectionUrl(url.into())
    }

    /// The URL with its password.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConnectionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask_url(&self.0))
    }
}

impl fmt::Debug for ConnectionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionUrl({self})")
    }
}

/// `url` with its password masked, in the authority and in the query.
///
/// It rather hides too much than too little: people write passwords with `@`, `/` and `?` into URLs without
/// percent-encoding them, so everything up to the last `@` belongs to the credentials, and text that is no URL is not
/// shown at all.
pub fn mask_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return MASK.to_owned();
    };
    if !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
        return MASK.to_owned();
    }
    let (credentials, place) = match rest.rsplit_once('@') {
        Some((credentials, place)) => (Some(credentials), place),
        None => (None, rest),
    };
    let mut shown = format!("{scheme}://");
    if let Some(credentials) = credentials {
        match credentials.split_once(':') {
            Some((user, _password)) => shown.extend([user, ":", MASK, "@"]),
            // Clients of Redis take a lone word for the password.
            None if scheme.to_ascii_lowercase().starts_with("redis") => shown.extend([MASK, "@"]),
            None => shown.extend([credentials, "@"]),
        }
    }
    match place.split_once('?') {
        None => shown.push_str(place),
        Some((place, query)) => {
            shown.extend([place, "?"]);
            shown.push_str(&query.split('&').map(mask_parameter).collect::<Vec<_>>().join("&"));
        }
    }
    shown
}

/// libpq takes `password` and `sslpassword` as parameters of the URL. A percent sign in a name may spell them too.
fn mask_parameter(parameter: &str) -> String {
    let name = parameter.split_once('=').map_or(parameter, |(name, _)| name);
    if name.to_ascii_lowercase().contains("pass") || name.contains('%') {
        format!("{name}={MASK}")
    } else {
        parameter.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_nothing_of_itself() {
        let secret = Secret::new("hunter2-hunter2");
        assert_eq!(format!("{secret:?}"), "Secret(***)");
        assert_eq!(secret.expose(), "hunter2-hunter2");
        let url = ConnectionUrl::new("redis://:hunter2@cache:6379/0");
        assert_eq!(format!("{url} {url:?}"), "redis://:***@cache:6379/0 ConnectionUrl(redis://:***@cache:6379/0)");
        assert_eq!(url.expose(), "redis://:hunter2@cache:6379/0");
    }

    #[test]
    fn urls_keep_everything_but_the_password() {
        for (url, shown) in [
            ("postgres://app@db/todos", "postgres://app@db/todos"),
            ("postgres://app:PASS@db:5432/todos?sslmode=require", "postgres://app:***@db:5432/todos?sslmode=require"),
            ("postgres://app:PA@SS@db/todos", "postgres://app:***@db/todos"),
            ("postgres://app:PA/SS@db/todos", "postgres://app:***@db/todos"),
            ("postgres://app:PA?SS@db/todos", "postgres://app:***@db/todos"),
            ("postgres://app:PA#SS@db/todos", "postgres://app:***@db/todos"),
            ("postgres://db/todos?user=app&password=PASS", "postgres://db/todos?user=app&password=***"),
            ("postgres://db/todos?sslPassword=PASS&a=b", "postgres://db/todos?sslPassword=***&a=b"),
            ("postgres://db/todos?p%61ssword=PASS", "postgres://db/todos?p%61ssword=***"),
            ("postgres://a:PASS@h/d?options=a@b", "postgres://a:***@b"),
            ("rediss://cache", "rediss://cache"),
            ("redis://PASS@cache", "redis://***@cache"),
            ("RedisS://PASS@cache:6379/0", "RedisS://***@cache:6379/0"),
            ("host=db password=PASS", "***"),
            ("app:PASS@db", "***"),
            ("app:PASS@db?x=http://y", "***"),
            ("", "***"),
        ] {
            assert_eq!(mask_url(url), shown, "{url}");
            assert!(!mask_url(url).contains("PASS"));
        }
    }
}

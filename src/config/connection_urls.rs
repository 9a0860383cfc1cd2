//! The forms in which addresses of PostgreSQL, Redis and Kafka come from other programs' settings, made into the one form that the
//! clients here take. What cannot be made into it is named.

use std::ffi::OsString;

use super::value::check_characters;

/// Settings of a session that may stand among the parameters of a URL, as lib/pq passes them on.
const SESSION_PARAMETERS: [&str; 3] = ["search_path", "statement_timeout", "timezone"];

/// What libpq and lib/pq take from the environment where the URL does not say it: variable, and parameter.
const ENVIRONMENT: [(&str, &str); 8] = [
    ("PGHOST", "host"),
    ("PGPORT", "port"),
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGDATABASE", "dbname"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGAPPNAME", "application_name"),
];

/// The URL of a database: from one, perhaps without host or user, or from libpq's `key=value` words.
///
/// # Errors
/// It is neither.
pub(super) fn database_url(text: &str) -> Result<String, String> {
    let text = text.trim();
    let url = match text.split_once("://") {
        Some((scheme, rest)) if ["postgres", "postgresql"].contains(&scheme.to_ascii_lowercase().as_str()) => {
            check_characters(text)?;
            format!("{}://{rest}", scheme.to_ascii_lowercase())
        }
        Some(_) => return Err("has another scheme".to_owned()),
        None if text.contains('=') => url_of_words(text)?,
        None => return Err("is neither a URL nor words of the form key=value".to_owned()),
    };
    Ok(with_session_parameters(&url))
}

/// The URL with what the environment says and it does not. Without a host it is localhost, as for lib/pq.
pub(super) fn completed(url: &str, environment: &dyn Fn(&str) -> Option<OsString>) -> String {
    let (start, query) = url.split_once('?').unwrap_or((url, ""));
    let rest = start.split_once("://").map_or(start, |(_, rest)| rest);
    let (credentials, place) = rest.rsplit_once('@').unwrap_or(("", rest));
    let (hosts, database) = place.split_once('/').unwrap_or((place, ""));
    let (user, has_password) = credentials.split_once(':').map_or((credentials, false), |(user, _)| (user, true));
    let mut parameters: Vec<String> = query.split('&').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let has = |parameters: &[String], name: &str| {
        parameters.iter().any(|parameter| parameter.split_once('=').is_some_and(|(found, _)| found == name))
    };
    let has_host = !hosts.is_empty() || has(&parameters, "host") || has(&parameters, "hostaddr");
    for (variable, name) in ENVIRONMENT {
        let is_said = match name {
            "host" => has_host,
            // The port of a host that is named is 5432.
            "port" => !hosts.is_empty(),
            "user" => !user.is_empty(),
            "password" => has_password,
            "dbname" => !database.is_empty(),
            _ => false,
        };
        if is_said || has(&parameters, name) {
            continue;
        }
        if let Some(value) = environment(variable).and_then(|value| value.into_string().ok()).filter(|v| !v.is_empty())
        {
            parameters.push(format!("{name}={}", encoded(&value)));
        }
    }
    if !has_host && !has(&parameters, "host") {
        parameters.push("host=localhost".to_owned());
    }
    if parameters.is_empty() { start.to_owned() } else { format!("{start}?{}", parameters.join("&")) }
}

/// The URL of Redis: without a host it is localhost; of a socket, with the user in the place where the client wants it.
///
/// # Errors
/// It is none.
pub(super) fn redis_url(text: &str) -> Result<String, String> {
    let text = text.trim();
    let Some((scheme, rest)) = text.split_once("://") else { return Err("is not a URL".to_owned()) };
    let scheme = scheme.to_ascii_lowercase();
    if !["redis", "rediss", "unix"].contains(&scheme.as_str()) {
        return Err("has another scheme".to_owned());
    }
    check_characters(text)?;
    let (credentials, place) =
        rest.rsplit_once('@').map_or((None, rest), |(credentials, place)| (Some(credentials), place));
    if scheme == "unix" {
        return socket_url(credentials, place);
    }
    let host = if place.is_empty() || place.starts_with(['/', '?', ':', '#']) { "localhost" } else { "" };
    let credentials = credentials.map(|credentials| format!("{credentials}@")).unwrap_or_default();
    Ok(format!("{scheme}://{credentials}{host}{place}"))
}

fn socket_url(credentials: Option<&str>, place: &str) -> Result<String, String> {
    if !place.starts_with('/') {
        return Err("has no path of a socket behind unix://".to_owned());
    }
    let mut url = format!("unix://{place}");
    if let Some(credentials) = credentials {
        let (user, password) =
            credentials.split_once(':').map_or((credentials, None), |(user, pass)| (user, Some(pass)));
        for (name, value) in [("user", Some(user).filter(|user| !user.is_empty())), ("pass", password)] {
            if let Some(value) = value {
                url.push(if url.contains('?') { '&' } else { '?' });
                url.push_str(&format!("{name}={value}"));
            }
        }
    }
    Ok(url)
}

/// libpq's words: `key=value`, a value with spaces in single quotes, `\` before what is meant as it is.
fn url_of_words(text: &str) -> Result<String, String> {
    let mut parameters = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        if rest.peek().is_none() {
            return Ok(format!("postgres://?{}", parameters.join("&")));
        }
        let mut name = String::new();
        while let Some(c) = rest.next_if(|c| *c != '=' && !c.is_whitespace()) {
            name.push(c);
        }
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        if name.is_empty() || rest.next() != Some('=') {
            return Err("has a word that is not of the form key=value".to_owned());
        }
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        let is_quoted = rest.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match rest.peek() {
                Some('\'') if is_quoted => {
                    rest.next();
                    break;
                }
                Some(c) if !is_quoted && c.is_whitespace() => break,
                None if !is_quoted => break,
                None => return Err("has a quote that does not end".to_owned()),
                Some('\\') => {
                    rest.next();
                    value.extend(rest.next());
                }
                Some(_) => value.extend(rest.next()),
            }
        }
        match name.as_str() {
            "host" => parameters.extend(value.split(',').map(|host| format!("host={}", encoded(host)))),
            _ => parameters.push(format!("{name}={}", encoded(&value))),
        }
    }
}

/// Moves settings of a session to where the server takes them (`options`), and names the application if nothing else does.
fn with_session_parameters(url: &str) -> String {
    let Some((start, query)) = url.split_once('?') else { return url.to_owned() };
    let (mut options, mut fallback, mut others) = (Vec::new(), None, Vec::new());
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("options", value)) => options.push(value.to_owned()),
            Some(("fallback_application_name", value)) => fallback = Some(value),
            Some((name, value)) if SESSION_PARAMETERS.contains(&name.to_ascii_lowercase().as_str()) => {
                // A space within a value has a backslash before it there.
                let value = value.replace("%20", "%5C%20").replace('+', "%2B");
                options.push(format!("-c%20{}%3D{value}", name.to_ascii_lowercase()));
            }
            _ => others.push(parameter.to_owned()),
        }
    }
    if let Some(name) = fallback.filter(|_| !others.iter().any(|other| other.starts_with("application_name="))) {
        others.push(format!("application_name={name}"));
    }
    if !options.is_empty() {
        others.push(format!("options={}", options.join("%20")));
    }
    if others.is_empty() { start.to_owned() } else { format!("{start}?{}", others.join("&")) }
}

/// The text as it stands in the query of a URL.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_a_url() {
        for (words, url) in [
            ("host=db user=app", "postgres://?host=db&user=app"),
            (
                r"host = a,b port='5432,5433' password='p w\'d\\' dbname=t",
                "postgres://?host=a&host=b&port=5432%2C5433&password=p%20w%27d%5C&dbname=t",
            ),
            ("host=/var/run/postgresql sslmode=disable", "postgres://?host=%2Fvar%2Frun%2Fpostgresql&sslmode=disable"),
            ("user='' host=db", "postgres://?user=&host=db"),
            ("host=db search_path='a, b'", "postgres://?host=db&options=-c%20search_path%3Da%2C%5C%20b"),
        ] {
            assert_eq!(database_url(words).as_deref(), Ok(url), "{words}");
        }
        for (wrong, reason) in [
            ("db:5432/todos", "is neither a URL"),
            ("host=db user", "has a word that is not of the form key=value"),
            ("host='db", "has a quote that does not end"),
            ("mysql://db/todos", "has another scheme"),
            ("postgres://db/a b", "contains a space"),
        ] {
            let refused = database_url(wrong).expect_err(wrong);
            assert!(refused.starts_with(reason), "{wrong}: {refused}");
        }
    }

    #[test]
    fn settings_of_a_session_go_to_where_the_server_takes_them() {
        for (url, expected) in [
            ("postgres://db/t?TimeZone=Europe/Berlin", "postgres://db/t?options=-c%20timezone%3DEurope/Berlin"),
            (
                "postgres://db/t?options=-c%20a%3Db&search_path=x&sslmode=require",
                "postgres://db/t?sslmode=require&options=-c%20a%3Db%20-c%20search_path%3Dx",
            ),
            ("postgres://db/t?fallback_application_name=x", "postgres://db/t?application_name=x"),
            ("postgres://db?application_name=y&fallback_application_name=x", "postgres://db?application_name=y"),
            ("POSTGRESQL:///t", "postgresql:///t"),
        ] {
            assert_eq!(database_url(url).as_deref(), Ok(expected), "{url}");
        }
    }

    #[test]
    fn what_a_url_does_not_say_the_environment_does() {
        let environment = |name: &str| {
            let value = match name {
                "PGHOST" => "/run/postgresql",
                "PGPORT" => "5433",
                "PGUSER" => "app",
                "PGPASSWORD" => "p@ss word",
                "PGSSLMODE" => "",
                _ => return None,
            };
            Some(OsString::from(value))
        };
        let all = "host=%2Frun%2Fpostgresql&port=5433&user=app&password=p%40ss%20word";
        for (url, expected) in [
            ("postgres:///todos", format!("postgres:///todos?{all}")),
            ("postgres://", format!("postgres://?{all}")),
            ("postgres://me:pw@db:1/t?sslmode=disable", "postgres://me:pw@db:1/t?sslmode=disable".to_owned()),
            ("postgres://me@db/t", "postgres://me@db/t?password=p%40ss%20word".to_owned()),
            ("postgres://me:pw@/t?host=other", "postgres://me:pw@/t?host=other&port=5433".to_owned()),
        ] {
            assert_eq!(completed(url, &environment), expected, "{url}");
        }
        assert_eq!(completed("postgres://me@/t", &|_| None), "postgres://me@/t?host=localhost");
    }

    #[test]
    fn redis_may_have_no_host_or_a_socket() {
        for (url, expected) in [
            ("redis://", "redis://localhost"),
            ("redis:///2", "redis://localhost/2"),
            ("Redis://:pw@/0", "redis://:pw@localhost/0"),
            ("rediss://:6380", "rediss://localhost:6380"),
            ("redis://cache:6379/0", "redis://cache:6379/0"),
            ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
            ("unix://u:p%40w@/run/redis.sock?db=2", "unix:///run/redis.sock?db=2&user=u&pass=p%40w"),
            ("unix://:pw@/run/redis.sock", "unix:///run/redis.sock?pass=pw"),
        ] {
            assert_eq!(redis_url(url).as_deref(), Ok(expected), "{url}");
        }
        for wrong in ["cache:6379", "http://cache", "unix://run/redis.sock", "redis://a b"] {
            assert!(redis_url(wrong).is_err(), "{wrong}");
        }
    }
}

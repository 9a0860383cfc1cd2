//! The value of `CORS_ORIGINS`: origins as browsers send them, several separated by commas, or `*`.

use super::token_settings::listed;
use super::value::Value;
use crate::limits::CORS_ORIGINS_MAX;

/// Origins, each once.
///
/// # Errors
/// One is none; which, and why.
pub(super) fn check_origins(text: &str) -> Result<Value, String> {
    let origins = listed(text);
    if origins.len() > CORS_ORIGINS_MAX {
        return Err(format!("has {} origins; at most {CORS_ORIGINS_MAX} are taken", origins.len()));
    }
    if origins.iter().any(|origin| origin == "*") && origins.len() > 1 {
        return Err("has * beside others, which it takes in: write it alone, or leave it out".to_owned());
    }
    origins.iter().filter(|origin| *origin != "*").try_for_each(|origin| check_origin(origin))?;
    Ok(Value::Text(origins.join(",")))
}

/// What a browser sends is compared byte by byte, so what it never sends would match nothing in silence.
fn check_origin(origin: &str) -> Result<(), String> {
    if origin == "null" {
        return Err("has null, which is the origin of anybody's sandboxed page".to_owned());
    }
    let wrong = |reason| Err(format!("has {}, which {reason}", origin.escape_debug()));
    let Some((scheme, host)) = origin.split_once("://") else {
        return wrong("has no scheme: write https:// before it");
    };
    if !origin.bytes().all(|byte| byte.is_ascii_graphic()) || host.is_empty() || scheme.is_empty() {
        return wrong("is no origin, such as https://app.example");
    }
    if host.contains(['/', '?', '#', '@']) {
        return wrong("has more than scheme, host and port: an origin ends there, without a slash");
    }
    if origin.contains('*') {
        return wrong("has a *: name each origin, or write * alone for all");
    }
    if origin.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return wrong("has capital letters, which browsers never send");
    }
    let is_default = |with: &str, port: &str| scheme == with && host.ends_with(port);
    if is_default("http", ":80") || is_default("https", ":443") {
        return wrong("has the port that its scheme has anyway, which browsers never send");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_browsers_send_is_taken_and_what_they_never_send_is_not() {
        let taken = |text: &str| match check_origins(text) {
            Ok(Value::Text(text)) => Some(text),
            _ => None,
        };
        assert_eq!(taken("*").as_deref(), Some("*"));
        assert_eq!(
            taken(" https://a.example , http://localhost:3000,http://[::1]:8080").as_deref(),
            Some("https://a.example,http://localhost:3000,http://[::1]:8080")
        );
        assert_eq!(taken("capacitor://localhost").as_deref(), Some("capacitor://localhost"));
        for refused in [
            "null",
            "a.example",
            "https://a/",
            "https://a/b",
            "https://me@a",
            "https://*.a",
            "https://A",
            "https://a:443",
            "http://a:80",
            "https://",
            "://a",
            "https://a b",
            "https://a,*",
            "https://a\r\nX: y",
        ] {
            assert_eq!(taken(refused), None, "{refused:?}");
        }
        let many = |count: usize| (0..count).map(|at| format!("https://a{at}")).collect::<Vec<_>>().join(",");
        assert!(taken(&many(CORS_ORIGINS_MAX)).is_some() && taken(&many(CORS_ORIGINS_MAX + 1)).is_none());
    }
}

//! What a person sees when the API has started.

use std::io::Write;
use std::net::SocketAddr;

use crate::auth::{self, KeySource};
use crate::config::{Config, Deployment, Secret};

/// Prints where the API listens, where the page is, and where the key of the tokens comes from, and, when it is embedded, lines to
/// try. `page_secret` is the key of the tokens where the page makes tokens.
pub fn print(config: &Config, address: SocketAddr, page_secret: Option<&Secret>) {
    // The one line that programs may rely on.
    let mut text = format!("million-rps listens on http://{address}\n");
    let key_of_page = page_secret.map(|secret| format!("#key={}", auth::page_key(secret))).unwrap_or_default();
    text += &format!("Open http://{}/{key_of_page} in a browser: the list, live.\n", reached_at(address));
    text += &who_reaches(address);
    let key = KeySource::of(&config.auth);
    match &config.deployment {
        Deployment::Embedded { data_dir } => {
            text += &first_steps(&reached_at(address), &data_dir.display().to_string(), &program(), &key);
        }
        Deployment::Services(_) => text += &format!("Tokens are checked with the key of {key}.\n"),
    }
    print_text(&text);
}

/// Prints where a worker answers questions about itself.
pub fn print_worker(address: SocketAddr) {
    print_text(&format!("million-rps worker listens on http://{address}\n"));
}

/// Prints what is wrong with the workers of an API that has just started.
#[cfg(feature = "services")]
pub fn print_workers(trouble: &str) {
    print_text(&format!("For now, {trouble}.\n"));
}

fn print_text(text: &str) {
    let mut stdout = std::io::stdout().lock();
    // Nobody may be reading, or the disk behind a redirection may be full: the process does its work all the same.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Where this machine reaches a listener at `address`.
fn reached_at(address: SocketAddr) -> String {
    let ip = address.ip().to_canonical();
    if ip.is_unspecified() || ip.is_loopback() && ip.is_ipv4() {
        format!("localhost:{}", address.port())
    } else {
        address.to_string()
    }
}

/// Says of a listener that the network reaches how to keep it to this machine.
fn who_reaches(address: SocketAddr) -> String {
    match address.ip().to_canonical() {
        ip if ip.is_unspecified() => {
            format!(
                "{ip} is every address of this machine: the network reaches it. HTTP_HOST=127.0.0.1 keeps it to itself.\n"
            )
        }
        _ => String::new(),
    }
}

/// How this program was called, so that the lines work as pasted.
fn program() -> String {
    std::env::current_exe().map_or_else(|_| "million-rps".into(), |path| path.display().to_string())
}

fn first_steps(authority: &str, data_dir: &str, program: &str, key: &KeySource) -> String {
    let (data_dir, program) = (shell_quoted(data_dir), shell_quoted(program));
    // A terminal without the server's key would sign with another one: there the line signs nothing and says what is missing.
    let (remark, guard) = match key {
        KeySource::Environment => (
            " It is in this terminal's environment: export the same JWT_SECRET in the other one first.",
            "JWT_SECRET=${JWT_SECRET:?is not set: export the JWT_SECRET that the server was started with} ",
        ),
        KeySource::DotEnv | KeySource::File(_) => ("", ""),
        KeySource::PublicKey | KeySource::KeySet(_) => {
            (" Put a token of its issuer in the place of the first line's.", "")
        }
    };
    format!(
        "\nEverything is kept in {data_dir}. Tokens are checked with the key of {key}.{remark}\n\
         Paste these lines into another terminal, in this folder:\n\n  \
         TOKEN=$({guard}{program} token --data-dir {data_dir} --sub me --ttl 24h)\n\n  \
         curl -i -w '\\n' http://{authority}/todos -H \"Authorization: Bearer $TOKEN\" \
         -H 'Content-Type: application/json' -d '{{\"title\":\"Try it\"}}'\n  \
         curl -i -w '\\n' 'http://{authority}/todos?limit=10'\n  \
         curl -i -w '\\n' http://{authority}/ready\n\n"
    )
}

fn shell_quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        text.into()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_survive_odd_folders() {
        assert_eq!(shell_quoted("data"), "data");
        assert_eq!(shell_quoted("my data's"), r"'my data'\''s'");
        let key = KeySource::File("my data/jwt-secret".into());
        let text = first_steps("localhost:8080", "my data", "/opt/x", &key);
        assert!(text.contains("TOKEN=$(/opt/x token --data-dir 'my data' --sub me --ttl 24h)"), "{text}");
        assert_eq!(text.matches("curl ").count(), 3);
        assert!(
            text.contains("'http://localhost:8080/todos?limit=10'"),
            "a list of any length does not fill the screen: {text}"
        );
    }

    #[test]
    fn a_listener_that_the_network_reaches_is_named() {
        for address in ["0.0.0.0:8080", "[::]:8080"] {
            let text = who_reaches(address.parse().expect("an address"));
            assert!(text.contains("the network reaches it. HTTP_HOST=127.0.0.1 "), "{text}");
        }
        for address in ["127.0.0.1:81", "[::1]:81", "10.1.2.3:8080"] {
            assert_eq!(who_reaches(address.parse().expect("an address")), "");
        }
    }

    #[test]
    fn the_lines_name_an_address_that_is_listened_on() {
        for (address, authority) in [
            ("0.0.0.0:8080", "localhost:8080"),
            ("[::]:8080", "localhost:8080"),
            ("127.0.0.1:81", "localhost:81"),
            ("10.1.2.3:8080", "10.1.2.3:8080"),
            ("[fe80::1]:8080", "[fe80::1]:8080"),
        ] {
            assert_eq!(reached_at(address.parse().expect("an address")), authority);
        }
    }
}

//! The value of `KAFKA_BROKERS`: hosts with or without a port, several separated by commas.

/// The port of a broker that is given without one.
const PORT: &str = "9092";

/// Brokers, each with its port.
///
/// # Errors
/// One is none; which, and why.
pub(super) fn brokers(text: &str) -> Result<String, String> {
    let given: Vec<&str> = text.split(',').map(str::trim).collect();
    let mut brokers = Vec::with_capacity(given.len());
    for (index, broker) in given.iter().enumerate() {
        brokers.push(with_port(broker).map_err(|problem| match given.len() {
            1 => problem,
            count => format!("{problem} (broker {} of {count})", index + 1),
        })?);
    }
    Ok(brokers.join(","))
}

fn with_port(broker: &str) -> Result<String, String> {
    if broker.is_empty() {
        return Err("has a broker without a host name: a comma too many, perhaps".to_owned());
    }
    if let Some((_, address)) = broker.split_once("://") {
        return Err(format!("has a scheme, which addresses of brokers are without: write {address}"));
    }
    if broker.contains([';', '|']) || broker.contains(char::is_whitespace) {
        return Err(format!("has brokers that are not separated by commas: {broker}"));
    }
    // An IPv6 address has colons of its own, in brackets.
    let bracketed = broker.strip_prefix('[').map(|rest| rest.split_once(']').ok_or("has a bracket that does not end"));
    let (host, rest) = match bracketed {
        Some(split) => {
            let (address, rest) = split?;
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(format!("has something else than an IPv6 address in brackets: {broker}"));
            }
            (&broker[..address.len() + 2], rest)
        }
        None => broker.split_at(broker.find(':').unwrap_or(broker.len())),
    };
    if broker.parse::<std::net::Ipv6Addr>().is_ok() {
        return Err(format!("has an IPv6 address without brackets: write [{broker}]:{PORT}"));
    }
    if host.is_empty() {
        return Err("has a broker without a host name".to_owned());
    }
    let is_of_a_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    if bracketed.is_none()
        && let Some(character) = host.chars().find(|c| !is_of_a_name(*c))
    {
        return Err(format!("has a broker with {character:?} in it, which no host name has: {broker}"));
    }
    let port = match rest.strip_prefix(':') {
        Some(port) => port,
        None if rest.is_empty() => PORT,
        None => return Err(format!("has something else than a port behind an address: {broker}")),
    };
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(format!("has a broker with a port that is not 1 to 65535: {broker}"));
    }
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_have_a_port_by_default() {
        for (given, expected) in [
            ("kafka", "kafka:9092"),
            ("a, b:9093", "a:9092,b:9093"),
            (" kafka_1.of-mine.example:19092 ", "kafka_1.of-mine.example:19092"),
            ("127.0.0.1:1,127.0.0.1:65535", "127.0.0.1:1,127.0.0.1:65535"),
            ("[::1]", "[::1]:9092"),
            ("[::1]:9095", "[::1]:9095"),
        ] {
            assert_eq!(brokers(given).as_deref(), Ok(expected), "{given}");
        }
    }

    #[test]
    fn what_is_no_broker_is_named_with_its_place() {
        for (wrong, named) in [
            ("", "without a host name"),
            ("a,", "comma too many, perhaps (broker 2 of 2)"),
            ("a,,b", "(broker 2 of 3)"),
            (":9092", "without a host name"),
            ("a:0", "1 to 65535: a:0"),
            ("a:65536", "1 to 65535: a:65536"),
            ("a:99999999999999999999", "1 to 65535"),
            ("a:b", "1 to 65535"),
            ("a:", "1 to 65535"),
            ("a:+9092", "1 to 65535"),
            ("a:9092:9093", "1 to 65535"),
            ("kafka://a:9092", "scheme, which addresses of brokers are without: write a:9092"),
            ("a:9092,PLAINTEXT://b:9092", "write b:9092 (broker 2"),
            ("a:9092;b:9092", "not separated by commas: a:9092;b:9092"),
            ("a:9092 b:9092", "not separated by commas"),
            ("a b", "not separated by commas"),
            ("a:9092/topic", "1 to 65535"),
            ("a/b:9092", "'/' in it"),
            ("user@a:9092", "'@' in it"),
            ("::1", "write [::1]:9092"),
            ("[::1", "does not end"),
            ("[a]:9092", "in brackets"),
            ("[::1]9092", "behind an address"),
        ] {
            let error = brokers(wrong).expect_err(wrong);
            assert!(error.starts_with("has ") && error.contains(named), "{wrong}: {error}");
        }
    }
}

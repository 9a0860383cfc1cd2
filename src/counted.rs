//! How many of what, as people read it: "1 todo", "2 todos".

use std::fmt;

/// A number, and what it counts in the plural.
#[derive(Debug, Clone, Copy)]
pub struct Counted<N>(pub N, pub &'static str);

impl<N: fmt::Display> fmt::Display for Counted<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counted(number, plural) = self;
        let number = number.to_string();
        match number.as_str() {
            "1" => write!(f, "1 {}", singular(plural)),
            _ => write!(f, "{number} {plural}"),
        }
    }
}

/// What one of them is called; of a rate, such as writes/s, one of what comes. Units that are symbols (s, ms) stay.
fn singular(plural: &str) -> String {
    let (noun, rest) = plural.split_at(plural.find('/').unwrap_or(plural.len()));
    match noun {
        "s" | "ms" => plural.to_owned(),
        _ => format!("{}{rest}", noun.strip_suffix('s').unwrap_or(noun)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        for (counted, text) in [
            (Counted(0, "todos"), "0 todos"),
            (Counted(1, "todos"), "1 todo"),
            (Counted(2, "todos"), "2 todos"),
            (Counted(1, "dead letters"), "1 dead letter"),
            (Counted(11, "replicas"), "11 replicas"),
            (Counted(1, "s"), "1 s"),
        ] {
            assert_eq!(counted.to_string(), text);
        }
    }
}

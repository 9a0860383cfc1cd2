//! Durations as people type and read them.

use std::time::Duration;

/// Units, with their seconds.
const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];

/// Reads a whole number with one unit: `90s`, `15m`, `24h`, `30d`.
///
/// # Errors
/// Says which form is expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a whole number with s, m, h or d, such as 24h".to_owned();
    let unit = text.chars().next_back().ok_or_else(expected)?;
    let (_, unit_seconds) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(expected)?;
    let digits = &text[..text.len() - 1];
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(expected());
    }
    let seconds = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| "is too long".to_owned())
}

/// Writes whole seconds with at most two units: `42s`, `3m 5s`, `2h 10m`.
pub fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (hours, minutes, _) => format!("{hours}h {minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("15m", 900), ("24h", 86_400), ("30d", 2_592_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "24", "h", "-1h", "+1h", "1.5h", "1 h", "1h30m", "24H", "1é", "24ms", "999999999999999999999d"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(parse_duration("213503982334602d"), Err("is too long".to_owned()));
    }

    #[test]
    fn durations_are_shown_with_at_most_two_units() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (60, "1m 0s"), (3_599, "59m 59s"), (7_830, "2h 10m")] {
            assert_eq!(show_duration(Duration::from_secs(seconds)), text);
        }
    }
}

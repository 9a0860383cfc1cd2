//! The value of `LOG_LEVEL`: a level, or several by module. The filter of `tracing` takes every word for the beginning of a
//! module's path and then shows all of it or nothing, so that a slip would be accepted and make the log louder or silent.

/// What `tracing` knows as levels; `off` is left out because a process that says nothing cannot be helped.
pub(super) const LOG_LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// The rooms of this crate, as `src/lib.rs` has them.
const ROOMS: [&str; 26] = [
    "auth",
    "change_feed",
    "cli",
    "command_log",
    "config",
    "contract",
    "counted",
    "data_dir",
    "encoder",
    "feed",
    "http",
    "keys",
    "limits",
    "memory",
    "observe",
    "page",
    "process",
    "producer",
    "refresher",
    "shard",
    "snapshot",
    "static_document",
    "store",
    "todo",
    "wires",
    "worker",
];
/// This crate.
const OWN: &str = "million_rps";
/// Others that log: Kafka's client, the crate around it, and the reactor.
const OTHERS: [&str; 3] = ["librdkafka", "rdkafka", "reactor"];

/// The value in lower case, without spaces.
///
/// # Errors
/// What is no level, or no module, with the nearest that there is.
pub(super) fn log_level(text: &str) -> Result<String, String> {
    let mut directives = Vec::new();
    for directive in text.split(',').map(|directive| directive.trim().to_ascii_lowercase()) {
        let parts = directive.rsplit_once('=').map(|(module, level)| (module.trim(), level.trim()));
        let (module, level) = parts.map_or((None, directive.as_str()), |(module, level)| (Some(module), level));
        if level.is_empty() {
            return Err("has nothing where a level is due (a comma too many, perhaps)".to_owned());
        }
        if !LOG_LEVELS.contains(&level) {
            return Err(match module {
                None if check_module(level).is_ok() => format!("has a module without a level: write {level}=debug"),
                _ => format!("has a level that is none of these: {level}{}", meant(level, &LOG_LEVELS)),
            });
        }
        directives.push(match module {
            Some(module) => {
                check_module(module)?;
                format!("{module}={level}")
            }
            None => level.to_owned(),
        });
    }
    Ok(directives.join(","))
}

/// Whether there can be something of this module in the log. What stands behind the room is taken as it is: the filter goes by
/// the beginning.
fn check_module(module: &str) -> Result<(), String> {
    let is_path = module.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':');
    if module.is_empty() || !is_path {
        return Err("has a module that is not a path such as million_rps::worker".to_owned());
    }
    let (root, rest) = module.split_once("::").map_or((module, None), |(root, rest)| (root, Some(rest)));
    if OTHERS.contains(&root) {
        return Ok(());
    }
    if root != OWN {
        let is_room = rest.is_none() && ROOMS.contains(&root);
        let meant = match is_room {
            true => format!("; the nearest is {OWN}::{root}"),
            false => meant(root, &[OWN, OTHERS[0], OTHERS[1], OTHERS[2]]),
        };
        return Err(format!("has a module that logs nothing here: {module}{meant}"));
    }
    let room = rest.map(|rest| rest.split_once("::").map_or(rest, |(room, _)| room));
    match room {
        Some(room) if !ROOMS.contains(&room) => {
            let nearest = nearest(room, &ROOMS);
            Err(format!("has a module that does not exist: {module}; the nearest is {OWN}::{nearest}"))
        }
        _ => Ok(()),
    }
}

fn meant(given: &str, known: &[&'static str]) -> String {
    format!("; the nearest is {}", nearest(given, known))
}

fn nearest(given: &str, known: &[&'static str]) -> &'static str {
    known.iter().min_by_key(|known| strsim::osa_distance(given, known)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_modules_that_there_are_are_taken() {
        for (given, taken) in [
            ("info", "info"),
            (" WARN , million_rps::worker = TRACE", "warn,million_rps::worker=trace"),
            ("million_rps=debug", "million_rps=debug"),
            (
                "info,million_rps::feed::redis=debug,librdkafka=warn",
                "info,million_rps::feed::redis=debug,librdkafka=warn",
            ),
            ("error,rdkafka::client=debug", "error,rdkafka::client=debug"),
            ("error,reactor=debug", "error,reactor=debug"),
        ] {
            assert_eq!(log_level(given).as_deref(), Ok(taken));
        }
    }

    #[test]
    fn a_slip_is_named_with_what_was_meant() {
        for (given, named, nearest) in [
            ("inof", "inof", "info"),
            ("warning", "warning", "warn"),
            ("info,million_rps::worker=dbug", "dbug", "debug"),
            ("milion_rps=debug", "milion_rps", "million_rps"),
            ("info,million-rps=debug", "not a path", "million_rps::worker"),
            ("million_rps::wroker=debug", "million_rps::wroker", "million_rps::worker"),
            ("million_rps::wroker::fold=debug", "million_rps::wroker::fold", "million_rps::worker"),
            ("worker=debug", "worker", "million_rps::worker"),
            ("libkafka=debug", "libkafka", "librdkafka"),
            ("million_rps::worker", "without a level", "million_rps::worker=debug"),
            ("info,,", "nothing", "comma"),
            ("million_rps=", "nothing", "level"),
            ("=debug", "not a path", ""),
        ] {
            let error = log_level(given).expect_err(given);
            assert!(error.contains(named) && error.contains(nearest), "{given}: {error}");
        }
    }

    #[test]
    fn the_rooms_are_those_of_the_crate() {
        let lib = include_str!("../lib.rs");
        let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
        assert!(modules.eq(ROOMS), "src/lib.rs has other modules than ROOMS");
    }
}

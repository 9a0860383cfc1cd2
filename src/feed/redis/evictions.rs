//! Whether Redis drops keys to stay within its memory: a feed that is evicted looks as if it had been emptied, again and again.

use std::time::Duration;

use super::link::Link;

/// What Redis says of its memory.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Memory {
    evicted_keys: u64,
    policy: String,
    limit: String,
}

/// Counts evictions between two looks.
#[derive(Debug, Default)]
pub(super) struct Evictions {
    seen: Option<u64>,
}

impl Evictions {
    /// What it means, if keys were evicted since the last look.
    pub fn since_last_look(&mut self, link: &mut Link) -> Option<String> {
        let info: String = link.run_plain(Duration::ZERO, |connection| redis::cmd("INFO").query(connection)).ok()?;
        let memory = parse(&info);
        // A server that was started again counts from zero.
        let before = self.seen.replace(memory.evicted_keys).filter(|seen| *seen <= memory.evicted_keys)?;
        (memory.evicted_keys > before).then(|| {
            format!(
                "Redis evicts keys, and the list with them, to stay within its maxmemory ({}, maxmemory-policy {}): set \
                 maxmemory-policy to noeviction and raise maxmemory, or give this deployment a Redis of its own",
                memory.limit, memory.policy
            )
        })
    }
}

fn parse(info: &str) -> Memory {
    let mut memory = Memory::default();
    for line in info.lines() {
        match line.trim_end().split_once(':') {
            Some(("evicted_keys", count)) => memory.evicted_keys = count.parse().unwrap_or_default(),
            Some(("maxmemory_policy", policy)) => policy.clone_into(&mut memory.policy),
            Some(("maxmemory_human", limit)) => limit.clone_into(&mut memory.limit),
            _ => {}
        }
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_info_are_read() {
        let info =
            "# Memory\r\nmaxmemory_human:3.00M\r\nmaxmemory_policy:allkeys-lru\r\n# Stats\r\nevicted_keys:12\r\n";
        assert_eq!(parse(info), Memory { evicted_keys: 12, policy: "allkeys-lru".into(), limit: "3.00M".into() });
        assert_eq!(parse(""), Memory::default());
    }
}

//! Which shards there are, and on which CPU each runs.

use core_affinity::CoreId;

/// The CPU of each shard, in shard order.
///
/// Without `shards`, there is one shard for each CPU that this process may use: the affinity mask (taskset, cpusets)
/// says which, and a cgroup quota may allow fewer. With more shards than CPUs, CPUs are used again in turn.
pub fn place_shards(shards: Option<usize>) -> Vec<Option<CoreId>> {
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    // The standard library's figure respects both the affinity mask and the cgroup quota (rounded up).
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    let count = shards.unwrap_or_else(|| allowed.min(cpus.len().max(1)));
    (0..count).map(|shard| (!cpus.is_empty()).then(|| cpus[shard % cpus.len()])).collect()
}

/// Pins the calling thread; `false` when the system refuses, which costs speed but nothing else.
pub fn pin(cpu: Option<CoreId>) -> bool {
    cpu.is_none_or(core_affinity::set_for_current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_can_be_overridden_and_cpus_are_reused() {
        let usual = place_shards(None);
        assert!(!usual.is_empty());
        let many = place_shards(Some(usual.len() * 2 + 1));
        assert_eq!(many.len(), usual.len() * 2 + 1);
        let cpus = core_affinity::get_core_ids().unwrap_or_default();
        assert_eq!(many[0], many[cpus.len()], "CPUs are used in turn");
    }
}

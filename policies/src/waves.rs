//! Which shards are captured together, when a host or a cluster may not serve all its captures at once.

use std::collections::HashMap;

/// How many captures may run at the same time; `None`: all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// On one host.
    pub per_host_max: Option<usize>,
    /// Of one cluster.
    pub per_cluster_max: Option<usize>,
}

/// Divides captures, given by the host that each would run on, into waves: each keeps to the limits, and the next begins
/// when the one before has ended. As few as a walk in order finds; without limits it is one. A limit of 0 counts as 1.
#[must_use]
pub fn waves(hosts: &[&str], limits: Limits) -> Vec<Vec<usize>> {
    let per_host = limits.per_host_max.unwrap_or(usize::MAX).max(1);
    let per_cluster = limits.per_cluster_max.unwrap_or(usize::MAX).max(1);
    let mut left: Vec<usize> = (0..hosts.len()).collect();
    let mut waves = Vec::new();
    while !left.is_empty() {
        let (mut wave, mut busy): (Vec<usize>, HashMap<&str, usize>) = (Vec::new(), HashMap::new());
        left.retain(|index| {
            let count = busy.entry(hosts.get(*index).copied().unwrap_or_default()).or_default();
            let fits = *count < per_host && wave.len() < per_cluster;
            if fits {
                *count += 1;
                wave.push(*index);
            }
            !fits
        });
        waves.push(wave);
    }
    waves
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn without_limits_all_go_together_and_with_them_in_turns() {
        let hosts = ["a", "a", "b", "a", "b"];
        let limits = |per_host_max, per_cluster_max| Limits { per_host_max, per_cluster_max };
        assert_eq!(waves(&hosts, Limits::default()), [[0, 1, 2, 3, 4]]);
        assert_eq!(waves(&hosts, limits(Some(1), None)), [vec![0, 2], vec![1, 4], vec![3]]);
        assert_eq!(waves(&hosts, limits(Some(2), Some(2))), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(waves(&hosts, limits(Some(0), None)).len(), 3);
        assert!(waves(&[], Limits::default()).is_empty());
    }

    proptest! {
        #[test]
        fn every_capture_is_in_one_wave_and_no_wave_passes_a_limit(
            hosts in proptest::collection::vec(0_u8..4, 0..40), per_host in 1_usize..4, per_cluster in 1_usize..9,
        ) {
            let names: Vec<String> = hosts.iter().map(u8::to_string).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let all = waves(&names, Limits { per_host_max: Some(per_host), per_cluster_max: Some(per_cluster) });
            let mut seen: Vec<usize> = all.iter().flatten().copied().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..hosts.len()).collect::<Vec<_>>());
            for wave in all {
                prop_assert!(!wave.is_empty() && wave.len() <= per_cluster);
                for host in 0..4 {
                    prop_assert!(wave.iter().filter(|index| hosts[**index] == host).count() <= per_host);
                }
            }
        }
    }
}

//! How the shards of one snapshot are divided among workers.

/// Which of the shards that are captured together the worker of the job reads itself, and which it offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Places of shards that others are asked to read.
    pub lent: Vec<usize>,
    /// The most of them that one other worker takes.
    pub each_max: usize,
}

/// Divides `shards` evenly among the job's worker and `others`. The worker itself always has one, and never less than another.
#[must_use]
pub fn share(shards: usize, others: usize) -> Share {
    let workers = others.saturating_add(1);
    let own = shards.div_ceil(workers);
    let lent: Vec<usize> = (own..shards).collect();
    let each_max = if others == 0 { 0 } else { lent.len().div_ceil(others) };
    Share { lent, each_max }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_worker_reads_all_and_a_single_shard_is_never_lent() {
        assert_eq!(share(5, 0), Share { lent: vec![], each_max: 0 });
        assert_eq!(share(1, 7), Share { lent: vec![], each_max: 0 });
        assert_eq!(share(0, 3), Share { lent: vec![], each_max: 0 });
        assert_eq!(share(3, 1), Share { lent: vec![2], each_max: 1 });
        assert_eq!(share(3, 2), Share { lent: vec![1, 2], each_max: 1 });
        assert_eq!(share(8, 2), Share { lent: vec![3, 4, 5, 6, 7], each_max: 3 });
    }

    proptest! {
        #[test]
        fn nobody_has_more_than_the_worker_of_the_job_and_all_is_read(shards in 0_usize..2000, others in 0_usize..50) {
            let Share { lent, each_max } = share(shards, others);
            let own = shards - lent.len();
            prop_assert!(each_max <= own);
            prop_assert!(each_max * others >= lent.len());
            prop_assert!(shards == 0 || own >= 1);
            prop_assert!(lent.iter().all(|place| *place < shards));
        }
    }
}

//! Why a job that is ready to begin still waits.

use std::fmt;

/// What runs beside a job that waits, over all daemons, and how much may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beside {
    /// Jobs of the same kind and cluster.
    pub same: u32,
    /// Jobs of its repository.
    pub repository: u32,
    /// As many may.
    pub repository_max: u32,
    /// Jobs whose source is on its host; 0 when it touches none.
    pub host: u32,
    /// As many may.
    pub host_max: u32,
}

/// What a job waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The job before it, of the same kind and cluster.
    Same,
    /// The limit of its repository.
    Repository,
    /// The limit of its host.
    Host,
    /// A worker.
    Worker,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "the one before it was still running",
            Self::Repository => "its repository had as many jobs as may run at one time",
            Self::Host => "its host had as many jobs as may run at one time",
            Self::Worker => "no worker had room for it",
        })
    }
}

/// The first thing that a job waits for.
#[must_use]
pub fn wait(beside: &Beside) -> Wait {
    if beside.same > 0 {
        Wait::Same
    } else if beside.repository >= beside.repository_max {
        Wait::Repository
    } else if beside.host >= beside.host_max {
        Wait::Host
    } else {
        Wait::Worker
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_waits_for_what_is_nearest_to_it() {
        let free = Beside { same: 0, repository: 3, repository_max: 4, host: 0, host_max: 1 };
        assert_eq!(wait(&free), Wait::Worker);
        assert_eq!(wait(&Beside { host: 1, ..free }), Wait::Host);
        assert_eq!(wait(&Beside { repository: 4, host: 1, ..free }), Wait::Repository);
        assert_eq!(wait(&Beside { same: 1, repository: 4, ..free }), Wait::Same);
    }
}

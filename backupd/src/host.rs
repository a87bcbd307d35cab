//! The machine that this process runs on.

/// Its name; empty when the kernel does not tell.
#[must_use]
pub fn name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

//! Durations and sizes as people write them.

use std::time::Duration;

/// A length of time, as [`policies::duration`] reads it.
///
/// # Errors
/// In words for whoever wrote it.
pub fn duration(text: &str) -> Result<Duration, String> {
    policies::duration::parse(text).map(Duration::from_millis)
}

/// `0`, `512MiB`, `4GiB`: a number of bytes, with KiB, MiB, GiB or TiB.
///
/// # Errors
/// In words for whoever wrote it.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong =
        || "a size is a number of bytes, with KiB, MiB, GiB or TiB where that is meant, such as 512MiB".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let shift = match unit.trim_start() {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_and_nothing_else() {
        assert_eq!(duration("1d12h").unwrap(), Duration::from_secs(36 * 3600));
        assert_eq!(duration("0s").unwrap(), Duration::ZERO);
        for wrong in ["", "5", "h", "1w"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!((bytes("0").unwrap(), bytes("17").unwrap()), (0, 17));
        assert_eq!((bytes("512MiB").unwrap(), bytes("4 GiB").unwrap()), (512 << 20, 4 << 30));
        for wrong in ["", "MiB", "1 MB", "-1", "1.5GiB", "99999999TiB", "99999999999999999999"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}

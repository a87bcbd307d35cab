//! Lengths of time as people write them: `2h`, `90m`, `7d 12h 30m`.

/// Units, the largest first, in ms.
const UNITS: [(char, u64); 4] = [('d', 86_400_000), ('h', 3_600_000), ('m', 60_000), ('s', 1000)];

/// Reads a length of time: numbers with the units `d`, `h`, `m`, `s`, the larger unit first, with or without spaces between. In ms.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no length of time: write it as in 2h, 90m or 7d 12h 30m");
    let (mut total, mut digits, mut units) = (0_u64, String::new(), UNITS.iter());
    for c in text.chars().filter(|c| *c != ' ') {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        // the iterator goes on behind the unit before, so that none comes twice or out of order
        let (_, unit_ms) = units.find(|(unit, _)| *unit == c).ok_or_else(wrong)?;
        let part = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(*unit_ms)).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        digits.clear();
    }
    if digits.is_empty() && units.len() < UNITS.len() { Ok(total) } else { Err(wrong()) }
}

/// A length of time in the form that [`parse`] reads: `1h 30m`, `0s`. What is below a second is left out.
#[must_use]
pub fn text(ms: u64) -> String {
    let (mut rest, mut parts) = (ms, Vec::new());
    for (unit, unit_ms) in UNITS {
        if rest >= unit_ms {
            parts.push(format!("{}{unit}", rest / unit_ms));
            rest %= unit_ms;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_are_read_as_people_write_them() {
        for (written, seconds) in [("2h", 7200), ("90m", 5400), ("7d 12h 30m", 649_800), ("1h30m", 5400), ("0s", 0)] {
            assert_eq!(parse(written), Ok(seconds * 1000), "{written}");
        }
        for wrong in ["", " ", "2", "h", "2 hours", "-1h", "30m 1h", "1h 1h", "1.5h", "99999999999999999999d", "2h 3"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds in 0_u64..10_000_000) {
            prop_assert_eq!(parse(&text(seconds * 1000)), Ok(seconds * 1000));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _either = parse(&text);
        }
    }
}

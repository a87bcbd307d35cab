//! What the storage of snapshots costs a month.
//!
//! As in ElastiCache's bill: every gigabyte that is stored for a month has a price, and where that is asked for the first snapshot of each
//! cluster is free. A gigabyte is 2^30 bytes, as AWS counts.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Bytes of a gigabyte.
const GB: u128 = 1 << 30;

/// Digits after the point that a price has.
const DIGITS: usize = 6;

/// An amount of money, in millionths of whatever the price is in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money {
    /// Millionths.
    pub millionths: u64,
}

/// Not an amount of money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotMoney;

impl fmt::Display for NotMoney {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a price is a number with at most six digits after the point, such as 0.023")
    }
}

impl std::error::Error for NotMoney {}

impl FromStr for Money {
    type Err = NotMoney;

    fn from_str(text: &str) -> Result<Self, NotMoney> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || part.len() > DIGITS || !digits(whole) || !digits(part) || text.ends_with('.') {
            return Err(NotMoney);
        }
        let whole: u64 = whole.parse().map_err(|_| NotMoney)?;
        let part: u64 = format!("{part:0<DIGITS$}").parse().map_err(|_| NotMoney)?;
        let millionths = whole.checked_mul(1_000_000).and_then(|whole| whole.checked_add(part)).ok_or(NotMoney)?;
        Ok(Self { millionths })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}", self.millionths / 1_000_000, self.millionths % 1_000_000);
        // cents are always shown
        let keep = text.len().saturating_sub(DIGITS - 2);
        let shown = text.trim_end_matches('0');
        f.write_str(text.get(..shown.len().max(keep)).unwrap_or(&text))
    }
}

/// A snapshot that is stored, oldest first among those of its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored<'a> {
    /// Its cluster.
    pub cluster: &'a str,
    /// Its bytes.
    pub bytes: u64,
}

/// What one cluster stores.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bill {
    /// Its snapshots.
    pub snapshots: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of these, bytes that cost something.
    pub billed_bytes: u64,
    /// What they cost a month, rounded up; `None` without a price.
    pub monthly: Option<Money>,
}

/// The monthly cost of each cluster. With `first_free` its oldest snapshot costs nothing.
#[must_use]
pub fn monthly<'a>(
    stored: impl IntoIterator<Item = Stored<'a>>,
    price: Option<Money>,
    first_free: bool,
) -> BTreeMap<&'a str, Bill> {
    let mut bills: BTreeMap<&str, Bill> = BTreeMap::new();
    for snapshot in stored {
        let bill = bills.entry(snapshot.cluster).or_default();
        let free = first_free && bill.snapshots == 0;
        bill.snapshots += 1;
        bill.bytes = bill.bytes.saturating_add(snapshot.bytes);
        bill.billed_bytes = bill.billed_bytes.saturating_add(if free { 0 } else { snapshot.bytes });
    }
    for bill in bills.values_mut() {
        bill.monthly = price.map(|price| {
            let cost = (u128::from(bill.billed_bytes) * u128::from(price.millionths)).div_ceil(GB);
            Money { millionths: u64::try_from(cost).unwrap_or(u64::MAX) }
        });
    }
    bills
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prices_are_read_exactly() {
        for (text, millionths, shown) in [
            ("0.085", 85_000, "0.085"),
            ("1", 1_000_000, "1.00"),
            ("0.000001", 1, "0.000001"),
            ("12.50", 12_500_000, "12.50"),
        ] {
            let money: Money = text.parse().unwrap();
            assert_eq!((money.millionths, money.to_string().as_str()), (millionths, shown), "{text}");
        }
        for bad in ["", ".", "1.", ".5", "-1", "1e3", "0.0000001", "99999999999999999999", "1,5"] {
            assert!(bad.parse::<Money>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_snapshot_of_each_cluster_may_be_free() {
        let gb = 1 << 30;
        let stored = [("a", 2 * gb), ("b", gb), ("a", gb)].map(|(cluster, bytes)| Stored { cluster, bytes });
        let price = Some("0.085".parse().unwrap());
        let bills = monthly(stored, price, true);
        assert_eq!((bills["a"].billed_bytes, bills["a"].monthly.unwrap().to_string()), (gb, "0.085".to_owned()));
        assert_eq!((bills["b"].bytes, bills["b"].monthly.unwrap().to_string()), (gb, "0.00".to_owned()));
        assert_eq!(monthly(stored, price, false)["a"].monthly.unwrap().to_string(), "0.255");
        assert_eq!(monthly(stored, None, false)["a"].monthly, None);
    }

    proptest! {
        #[test]
        fn a_free_snapshot_never_costs_more(sizes in prop::collection::vec(0_u64..1 << 50, 0..20), millionths in 0_u64..1 << 30) {
            let stored = || sizes.iter().map(|bytes| Stored { cluster: "a", bytes: *bytes });
            let price = Some(Money { millionths });
            let (free, full) = (monthly(stored(), price, true), monthly(stored(), price, false));
            if let (Some(free), Some(full)) = (free.get("a"), full.get("a")) {
                prop_assert!(free.monthly <= full.monthly && free.billed_bytes <= full.bytes);
                prop_assert_eq!(full.billed_bytes, full.bytes);
            }
        }

        #[test]
        fn money_is_read_back_as_it_is_shown(millionths: u64) {
            let money = Money { millionths };
            prop_assert_eq!(money.to_string().parse::<Money>().unwrap(), money);
        }
    }
}

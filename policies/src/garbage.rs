//! What in a repository is garbage, and what only looks like it.
//!
//! Nothing is garbage because a manifest is missing: a job may be at work. It must also be old enough, and neither a
//! claim nor a lease may be alive. What is not named as we name things is never touched.

/// What an object is, by its name beside the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `shard-<nnnn>-<attempt>.bkd`
    Shard,
    /// `wrap-<key-id>.json`
    Wrap,
    /// `lease-<id>-<n>.json`
    Lease,
    /// `fact-<kind>-<id>.json`
    Fact,
    /// `manifest.json`
    Manifest,
}

/// Who needs what is in the folder of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A manifest, which can be read.
    Manifest,
    /// A manifest that cannot be read: nobody knows what it names.
    BrokenManifest,
    /// A job is making the snapshot: its claim is alive.
    Claim,
    /// A job is reading it: its lease is alive.
    Lease,
    /// Nobody that we know of.
    Nobody,
}

/// What is known of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// What it is; `None` when it is not named as ours are.
    pub kind: Option<Kind>,
    /// Whether the manifest names it (shards), or it is alive (leases).
    pub needed: bool,
    /// The least that it can be old, ms: by the store's clock, and by the time in the snapshot's id.
    pub age_ms: u64,
}

/// What becomes of an object, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is garbage.
    Remove(&'static str),
    /// It is kept although no manifest names it.
    Keep(&'static str),
    /// It belongs to a snapshot.
    Belongs,
    /// It is not ours: it is told and left.
    Unknown,
}

/// Decides about one object in the folder of a snapshot; `guard_ms` is the age that garbage must have.
#[must_use]
pub fn judge(item: Item, holder: Holder, guard_ms: u64) -> Verdict {
    let Some(kind) = item.kind else { return Verdict::Unknown };
    let when_old = |reason| if item.age_ms >= guard_ms { Verdict::Remove(reason) } else { Verdict::Keep(YOUNG) };
    match (holder, kind) {
        (Holder::Manifest, Kind::Shard) if !item.needed => when_old("the manifest names another attempt at this shard"),
        (Holder::Manifest | Holder::Nobody, Kind::Lease) if !item.needed => when_old("a lease that ran out"),
        (Holder::Manifest, _) => Verdict::Belongs,
        (Holder::BrokenManifest, _) => Verdict::Keep("the manifest beside it cannot be read"),
        (Holder::Claim, _) => Verdict::Keep("a job is making this snapshot"),
        (Holder::Lease, _) => Verdict::Keep("a job is reading this snapshot"),
        (Holder::Nobody, Kind::Manifest) => Verdict::Keep("a manifest appeared"),
        (Holder::Nobody, _) => when_old("no manifest names it"),
    }
}

/// Why something young is kept.
pub const YOUNG: &str = "it is younger than the guard";

/// What a file beside a manifest is; `None` when it is not named as ours are.
#[must_use]
pub fn kind_of(file: &str) -> Option<Kind> {
    if file == "manifest.json" {
        return Some(Kind::Manifest);
    }
    if let Some(numbers) = file.strip_prefix("shard-").and_then(|rest| rest.strip_suffix(".bkd")) {
        let (shard, attempt) = numbers.split_once('-')?;
        return (shard.len() >= 4 && is_number(shard) && is_number(attempt)).then_some(Kind::Shard);
    }
    let (kind, rest) = file.strip_suffix(".json")?.split_once('-')?;
    match kind {
        "wrap" => is_key_id(rest).then_some(Kind::Wrap),
        "fact" => is_snapshot_id(rest.split_once('-').filter(|(kind, _)| is_word(kind))?.1).then_some(Kind::Fact),
        "lease" => {
            let (id, number) = rest.rsplit_once('-')?;
            (is_snapshot_id(id) && is_number(number)).then_some(Kind::Lease)
        }
        _ => None,
    }
}

/// Whether a part of a name is the id of a master key: `k-…` of a key file, `x-…` of a key pair, or the ARN of a key of KMS with `.` for `:` and `/`.
fn is_key_id(text: &str) -> bool {
    match text.split('.').collect::<Vec<_>>().as_slice() {
        [id] => (id.starts_with("k-") || id.starts_with("x-")) && is_word(id),
        ["arn", words @ ..] => words.len() == 6 && words.iter().all(|word| is_word(word)),
        _ => false,
    }
}

/// The claim that a file below `_names/<name>/` belongs to; `None` when it is not named as ours are.
#[must_use]
pub fn claim_of(file: &str) -> Option<u64> {
    let (number, note) = file.strip_suffix(".json").map(|stem| stem.split_once('-').unwrap_or((stem, "")))?;
    let renewal = note.strip_prefix("renewed-").is_some_and(is_number);
    let known = matches!(note, "" | "released") || renewal;
    (known && number.len() >= 6 && is_number(number)).then(|| number.parse().ok())?
}

/// The number of a definition beside the snapshots of a cluster; `None` when the file is not named as ours are.
#[must_use]
pub fn definition_of(file: &str) -> Option<u64> {
    let number = file.strip_prefix("definition-")?.strip_suffix(".json")?;
    (number.len() >= 6 && is_number(number)).then(|| number.parse().ok())?
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Whether a text is an id as snapshots, facts and leases have: `20261123T081500Z-0a1b2c3d`.
#[must_use]
pub fn is_snapshot_id(text: &str) -> bool {
    let pattern = b"00000000T000000Z-xxxxxxxx";
    text.len() == pattern.len()
        && text.bytes().zip(pattern).all(|(b, pattern)| match pattern {
            b'0' => b.is_ascii_digit(),
            b'x' => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
            other => b == *other,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "20261123T081500Z-0a1b2c3d";

    #[test]
    fn only_our_own_names_are_ours() {
        for (file, kind) in [
            ("manifest.json".to_owned(), Kind::Manifest),
            ("shard-0000-1.bkd".to_owned(), Kind::Shard),
            ("shard-12345-12.bkd".to_owned(), Kind::Shard),
            ("wrap-k-0011223344556677.json".to_owned(), Kind::Wrap),
            ("wrap-x-0011223344556677.json".to_owned(), Kind::Wrap),
            ("wrap-arn.aws.kms.eu-west-1.111122223333.key.1234abcd-12ab.json".to_owned(), Kind::Wrap),
            (format!("fact-tombstone-{ID}.json"), Kind::Fact),
            (format!("lease-{ID}-000001.json"), Kind::Lease),
        ] {
            assert_eq!(kind_of(&file), Some(kind), "{file}");
            for foreign in [format!("{file}~"), format!("x{file}"), format!("a/{file}"), file.to_uppercase()] {
                assert_eq!(kind_of(&foreign), None, "{foreign}");
            }
        }
        for foreign in [
            "shard-1-1.bkd",
            "shard-0000-.bkd",
            "wrap-x.json",
            "wrap-arn.aws.kms..1.key.2.json",
            "fact--x.json",
            "lease-1.json",
            "notes.json",
        ] {
            assert_eq!(kind_of(foreign), None, "{foreign}");
        }
        assert_eq!(claim_of("000001.json"), Some(1));
        assert_eq!(claim_of("000012-renewed-000003.json"), Some(12));
        assert_eq!(claim_of("000012-released.json"), Some(12));
        for foreign in ["1.json", "000001", "000001-x.json", "000001-renewed-.json", "x.json"] {
            assert_eq!(claim_of(foreign), None, "{foreign}");
        }
        assert_eq!(
            (definition_of("definition-000012.json"), definition_of("definition-1234567.json")),
            (Some(12), Some(1_234_567))
        );
        for foreign in ["definition-1.json", "definition-000001", "definition-00000x.json", "x-definition-000001.json"]
        {
            assert_eq!(definition_of(foreign), None, "{foreign}");
        }
        assert!(is_snapshot_id(ID) && !is_snapshot_id("20261123T081500Z-0A1B2C3D") && !is_snapshot_id(""));
    }

    #[test]
    fn a_folder_without_a_manifest_is_garbage_only_when_old_and_held_by_nobody() {
        let shard = Item { kind: Some(Kind::Shard), needed: false, age_ms: 100 };
        assert!(matches!(judge(shard, Holder::Nobody, 100), Verdict::Remove(_)));
        assert_eq!(judge(shard, Holder::Nobody, 101), Verdict::Keep(YOUNG));
        for holder in [Holder::BrokenManifest, Holder::Claim, Holder::Lease] {
            assert!(matches!(judge(shard, holder, 0), Verdict::Keep(_)), "{holder:?}");
        }
        assert!(matches!(judge(shard, Holder::Manifest, 100), Verdict::Remove(_)));
        assert_eq!(judge(Item { needed: true, ..shard }, Holder::Manifest, 0), Verdict::Belongs);
    }

    fn holder() -> impl Strategy<Value = Holder> {
        use Holder::{BrokenManifest, Claim, Lease, Manifest, Nobody};
        prop::sample::select(vec![Manifest, BrokenManifest, Claim, Lease, Nobody])
    }

    fn kind() -> impl Strategy<Value = Option<Kind>> {
        use Kind::{Fact, Lease, Manifest, Shard, Wrap};
        prop::option::of(prop::sample::select(vec![Shard, Wrap, Lease, Fact, Manifest]))
    }

    proptest! {
        #[test]
        fn nothing_young_foreign_needed_or_held_is_removed(
            kind in kind(), needed: bool, age_ms in 0_u64..200, holder in holder(), guard_ms in 0_u64..200,
        ) {
            let verdict = judge(Item { kind, needed, age_ms }, holder, guard_ms);
            if matches!(verdict, Verdict::Remove(_)) {
                prop_assert!(age_ms >= guard_ms);
                prop_assert!(kind.is_some() && kind != Some(Kind::Manifest));
                prop_assert!(holder == Holder::Nobody || (holder == Holder::Manifest && !needed));
                prop_assert!(holder == Holder::Nobody || matches!(kind, Some(Kind::Shard | Kind::Lease)));
            }
        }
    }
}

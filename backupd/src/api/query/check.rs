//! What parameters may be, with the words that AWS refuses them with.
//!
//! The order in which a request is judged: signature, action and version, parameters that are missing or of a wrong type, names,
//! combinations, existence, duplicates, state, quota. Each action keeps to it; this module has the steps up to combinations.

use policies::retention::LIMIT_DAYS_MAX;
use policies::slot::SlotSet;

use super::error::{Code, Fault};
use super::form::Form;
use super::shapes::Tag;

/// The version of the API of ElastiCache.
pub const VERSION: &str = "2015-02-02";

/// The version of the API of STS.
pub const VERSION_STS: &str = "2011-06-15";

/// The most tags of a resource.
pub const TAGS_MAX: usize = 50;

/// The least size of a page.
const RECORDS_MIN: u32 = 20;

/// The most ARNs of seeds.
const ARNS_MAX: usize = 512;

const DAY_MINUTES: u32 = 1440;

/// The id of something that is to be made, as it is kept: in lower case.
///
/// # Errors
/// `InvalidParameterValue` for what is no id.
pub fn new_id(parameter: &str, text: &str, len_max: usize) -> Result<String, Fault> {
    let lower = text.to_ascii_lowercase();
    let is_id = lower.starts_with(|c: char| c.is_ascii_lowercase())
        && lower.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && !lower.ends_with('-')
        && !lower.contains("--");
    if !is_id {
        return Err(Fault::value(format!(
            "The parameter {parameter} is not a valid identifier. Identifiers must begin with a letter; must contain only \
             ASCII letters, digits, and hyphens; and must not end with a hyphen or contain two consecutive hyphens."
        )));
    }
    if lower.len() > len_max {
        return Err(Fault::value(format!("The parameter {parameter} must be no longer than {len_max} characters.")));
    }
    Ok(lower)
}

/// A window, as `hh24:mi-hh24:mi`.
///
/// # Errors
/// `InvalidParameterValue` for what is none, or shorter than an hour.
pub fn window(text: &str) -> Result<String, Fault> {
    let (start, end) = minutes(text).ok_or_else(|| {
        Fault::value(
            "Invalid backup window format. Should be specified as a range hh24:mi-hh24:mi (24H Clock UTC). Example: 03:15-08:15",
        )
    })?;
    if (end + DAY_MINUTES - start) % DAY_MINUTES < policies::window::DAILY_MINUTES_MIN {
        return Err(Fault::value("Snapshot window must be at least 60 minutes."));
    }
    Ok(text.to_owned())
}

/// The minutes of the day that a window begins and ends at.
fn minutes(text: &str) -> Option<(u32, u32)> {
    let (start, end) = text.split_once('-')?;
    Some((minute(start)?, minute(end)?))
}

fn minute(text: &str) -> Option<u32> {
    let two = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u32>().ok()).flatten();
    let (hour, minute) = text.split_once(':').filter(|_| text.len() == 5)?;
    let (hour, minute) = (two(hour)?, two(minute)?);
    (hour < 24 && minute < 60).then_some(hour * 60 + minute)
}

/// That a window of maintenance, `ddd:hh24:mi-ddd:hh24:mi`, does not meet the window of backups. There is no maintenance here; clients
/// that name such a window want to hear of a mistake.
///
/// # Errors
/// `InvalidParameterValue` when they meet, or it is no window.
pub fn maintenance(text: &str, backups: Option<&str>) -> Result<(), Fault> {
    let moment = |text: &str| {
        let (day, time) = text.split_once(':')?;
        let days = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
        let day = days.iter().position(|name| day.eq_ignore_ascii_case(name))?;
        Some(u32::try_from(day).ok()? * DAY_MINUTES + minute(time)?)
    };
    let read = text.split_once('-').and_then(|(start, end)| Some((moment(start)?, moment(end)?)));
    let Some((start, end)) = read else {
        return Err(Fault::value(
            "Invalid maintenance window format. Should be specified as a range ddd:hh24:mi-ddd:hh24:mi (24H Clock UTC). Example: sun:23:00-mon:01:30",
        ));
    };
    let Some((from, to)) = backups.and_then(minutes) else { return Ok(()) };
    let (week, length) = (7 * DAY_MINUTES, (to + DAY_MINUTES - from) % DAY_MINUTES);
    let maintained = (end + week - start) % week;
    let meets = (0..7).any(|day| {
        let begins = day * DAY_MINUTES + from;
        (begins + week - start) % week < maintained || (start + week - begins) % week < length
    });
    if meets { Err(Fault::value("The snapshot window and maintenance window must not overlap.")) } else { Ok(()) }
}

/// For how many days automated snapshots are kept.
///
/// # Errors
/// `InvalidParameterValue` for more than 35.
pub fn retention(form: &Form) -> Result<Option<u32>, Fault> {
    let text = form.said("SnapshotRetentionLimit");
    let wrong = |text: &str| {
        let message = format!(
            "Invalid snapshot retention limit: {text}. Retention limit must be between 0 and {LIMIT_DAYS_MAX}."
        );
        Fault::value(message)
    };
    let read = |text: &str| text.parse::<u32>().ok().filter(|days| *days <= LIMIT_DAYS_MAX);
    text.map(|text| read(text).ok_or_else(|| wrong(&text.chars().take(20).collect::<String>()))).transpose()
}

/// How many records an answer has; `most` when nothing is said.
///
/// # Errors
/// `InvalidParameterValue` for less than 20 or more than `most`.
pub fn max_records(form: &Form, most: u32) -> Result<usize, Fault> {
    let count = form.number("MaxRecords")?.unwrap_or(most);
    if !(RECORDS_MIN..=most).contains(&count) {
        let message = format!("Invalid value {count} for MaxRecords. Must be between {RECORDS_MIN} and {most}.");
        return Err(Fault::value(message));
    }
    usize::try_from(count).map_err(|_| Fault::value("Invalid value for MaxRecords."))
}

/// The tags of a request; `None` when it has none.
///
/// # Errors
/// `InvalidParameterValue` for names and values that tags cannot have, `TagQuotaPerResourceExceeded` for more than 50.
pub fn tags(form: &Form) -> Result<Option<Vec<Tag>>, Fault> {
    let mut tags: Vec<Tag> = Vec::new();
    for element in form.list("Tags", "Tag")? {
        let tag = Tag {
            key: element.required("Key")?.to_owned(),
            value: element.text("Value").unwrap_or_default().to_owned(),
        };
        if tag.key.chars().count() > 128 || tag.value.chars().count() > 256 {
            return Err(Fault::value("The key of a tag has at most 128 characters, its value at most 256."));
        }
        if tag.key.to_ascii_lowercase().starts_with("aws:") {
            return Err(Fault::value("Tag keys that begin with aws: are reserved for system use."));
        }
        if tags.iter().any(|other| other.key == tag.key) {
            return Err(Fault::value("Each key of a tag can be given once."));
        }
        tags.push(tag);
    }
    check_tag_count(tags.len())?;
    Ok(Some(tags).filter(|tags| !tags.is_empty()))
}

/// That a resource may have so many tags.
///
/// # Errors
/// `TagQuotaPerResourceExceeded`.
pub fn check_tag_count(count: usize) -> Result<(), Fault> {
    if count <= TAGS_MAX {
        return Ok(());
    }
    let message = format!(
        "The request cannot be processed because it would cause the resource to have more than the allowed number of tags. The maximum number of tags permitted on a resource is {TAGS_MAX}."
    );
    Err(Fault::new(Code::TagQuotaPerResourceExceeded, message))
}

/// The slots of a shard, as in `0-5460,10923`.
///
/// # Errors
/// `InvalidParameterValue`.
pub fn slots(text: &str) -> Result<SlotSet, Fault> {
    text.parse().map_err(|error: policies::slot::SlotError| {
        Fault::value(format!("Invalid Slots {}: {error}.", text.chars().take(100).collect::<String>()))
    })
}

/// Objects that are named as seeds: bucket and key of each.
///
/// # Errors
/// `InvalidParameterValue` for what is no ARN of an object, or has a comma.
pub fn seeds(form: &Form) -> Result<Vec<(String, String)>, Fault> {
    let arns = form.texts("SnapshotArns", "SnapshotArn")?;
    if arns.len() > ARNS_MAX {
        return Err(Fault::value(format!("At most {ARNS_MAX} SnapshotArns can be given.")));
    }
    let seed = |arn: String| {
        let (bucket, key) = arn.strip_prefix("arn:aws:s3:::")?.split_once('/')?;
        let is_plain = !arn.contains(',') && !bucket.is_empty() && !key.is_empty();
        is_plain.then(|| (bucket.to_owned(), key.to_owned()))
    };
    let wrong = "Invalid SnapshotArns: each must be the ARN of an object, such as arn:aws:s3:::bucket/folder/file.rdb, without a comma.";
    arns.into_iter().map(|arn| seed(arn).ok_or_else(|| Fault::value(wrong))).collect()
}

/// What an ARN of ours names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// A snapshot.
    Snapshot(String),
    /// A node.
    Cluster(String),
    /// A cluster of ours.
    Group(String),
}

/// Reads an ARN.
///
/// # Errors
/// `InvalidARN`.
pub fn resource(arn: &str) -> Result<Resource, Fault> {
    let parts: Vec<&str> = arn.splitn(7, ':').collect();
    let found = match *parts.as_slice() {
        ["arn", _, "elasticache", _, _, kind, name] if !name.is_empty() => match kind {
            "snapshot" => Some(Resource::Snapshot(name.to_owned())),
            "cluster" => Some(Resource::Cluster(name.to_owned())),
            "replicationgroup" => Some(Resource::Group(name.to_owned())),
            _ => None,
        },
        _ => None,
    };
    found.ok_or_else(|| {
        Fault::new(Code::InvalidArn, "The ARN must be that of a snapshot, a cluster or a replication group.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<T: std::fmt::Debug>(result: Result<T, Fault>) -> String {
        result.unwrap_err().message
    }

    fn form(text: &str) -> Form {
        Form::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn ids_are_those_of_elasticache() {
        for (given, kept) in [("a", "a"), ("Backup-Orders-2026", "backup-orders-2026"), ("x1-2", "x1-2")] {
            assert_eq!(new_id("SnapshotName", given, 40).as_deref(), Ok(kept));
        }
        for wrong in ["", "1a", "-a", "a-", "a--b", "a_b", "a.b", "é", "a b"] {
            assert!(message(new_id("SnapshotName", wrong, 40)).contains("is not a valid identifier"), "{wrong}");
        }
        assert!(new_id("SnapshotName", &"a".repeat(41), 40).is_err());
    }

    #[test]
    fn windows_are_refused_in_the_words_of_aws() {
        for good in ["03:15-08:15", "23:30-00:30", "00:00-23:59"] {
            assert_eq!(window(good).as_deref(), Ok(good));
        }
        for short in ["03:00-03:59", "03:00-03:00", "23:30-00:29"] {
            assert_eq!(message(window(short)), "Snapshot window must be at least 60 minutes.");
        }
        for wrong in ["3:15-8:15", "03:15", "24:00-05:00", "03:60-05:00", "03:15-08:15 ", "+3:15-08:15", ""] {
            assert_eq!(
                message(window(wrong)),
                "Invalid backup window format. Should be specified as a range hh24:mi-hh24:mi (24H Clock UTC). Example: 03:15-08:15"
            );
        }
    }

    #[test]
    fn windows_of_maintenance_may_not_meet_those_of_backups() {
        let overlaps = |maintained: &str, backups: &str| maintenance(maintained, Some(backups)).is_err();
        assert!(!overlaps("sun:05:00-sun:06:00", "03:00-05:00"));
        assert!(overlaps("sun:04:59-sun:06:00", "03:00-05:00"));
        assert!(overlaps("sat:23:30-sun:00:30", "00:00-01:00"));
        assert!(overlaps("mon:03:30-mon:04:00", "03:00-05:00"), "within");
        assert!(overlaps("mon:00:00-tue:00:00", "23:00-00:30"));
        assert!(!overlaps("sat:22:00-sat:23:00", "23:00-00:30"));
        assert_eq!(maintenance("sun:05:00-sun:06:00", None), Ok(()));
        for wrong in ["sun:05:00", "day:05:00-sun:06:00", "05:00-06:00", "sun:25:00-sun:26:00"] {
            assert!(message(maintenance(wrong, None)).starts_with("Invalid maintenance window format"), "{wrong}");
        }
    }

    #[test]
    fn retention_and_pages_have_their_limits() {
        let days = |text: &str| retention(&form(&format!("SnapshotRetentionLimit={text}")));
        assert_eq!((days("0"), days("35"), days("")), (Ok(Some(0)), Ok(Some(35)), Ok(None)));
        assert_eq!(
            message(days("36")),
            "Invalid snapshot retention limit: 36. Retention limit must be between 0 and 35."
        );
        assert!(days("-1").is_err() && days("x").is_err());
        let count = |text: &str| max_records(&form(&format!("MaxRecords={text}")), 50);
        assert_eq!((count(""), count("20"), count("50")), (Ok(50), Ok(20), Ok(50)));
        assert!(count("19").is_err() && count("51").is_err());
    }

    #[test]
    fn tags_are_few_and_short() {
        let read = |text: &str| tags(&form(text));
        let tag = |key: &str, value: &str| Tag { key: key.to_owned(), value: value.to_owned() };
        assert_eq!(
            read("Tags.Tag.1.Key=a&Tags.Tag.1.Value=b&Tags.Tag.2.Key=c"),
            Ok(Some(vec![tag("a", "b"), tag("c", "")]))
        );
        assert_eq!((read("Tags="), read("")), (Ok(None), Ok(None)));
        for wrong in ["Tags.Tag.1.Value=b", "Tags.Tag.1.Key=aws:x", "Tags.Tag.1.Key=a&Tags.Tag.2.Key=a"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let many: Vec<String> = (1..=51).map(|n| format!("Tags.Tag.{n}.Key=k{n}")).collect();
        assert_eq!(read(&many.join("&")).unwrap_err().code, Code::TagQuotaPerResourceExceeded);
        assert!(read(&format!("Tags.Tag.1.Key={}", "k".repeat(129))).is_err());
    }

    #[test]
    fn arns_name_resources_and_seeds() {
        let group = Resource::Group("rg".to_owned());
        assert_eq!(resource("arn:aws:elasticache:us-east-1:123456789012:replicationgroup:rg"), Ok(group));
        let snapshot = Resource::Snapshot("automatic.x-2026".to_owned());
        assert_eq!(resource("arn:aws:elasticache:eu:1:snapshot:automatic.x-2026"), Ok(snapshot));
        for wrong in
            ["", "rg", "arn:aws:s3:::b/k", "arn:aws:elasticache:e:1:user:x", "arn:aws:elasticache:e:1:cluster:"]
        {
            assert_eq!(resource(wrong).unwrap_err().code, Code::InvalidArn, "{wrong}");
        }
        let read = |arn: &str| seeds(&form(&format!("SnapshotArns.SnapshotArn.1={arn}")));
        assert_eq!(read("arn:aws:s3:::b/f/x.rdb"), Ok(vec![("b".to_owned(), "f/x.rdb".to_owned())]));
        for wrong in ["b/f", "arn:aws:s3:::b", "arn:aws:s3:::/k", "arn:aws:s3:::b/x,y"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(slots("0-16384").is_err() && slots("0-5460,10923").is_ok());
    }
}

//! The form of a request: `Action=CreateSnapshot&Tags.Tag.1.Key=a&…`.
//!
//! Members are read by name, with the type that the caller expects. Lists are `Name.Element.N` or `Name.member.N`, from 1 on and
//! without a gap; an empty one is `Name=`.

use std::collections::BTreeMap;

use chrono::DateTime;
use percent_encoding::percent_decode_str;

use super::error::{Code, Fault};

/// The largest form, bytes.
pub const FORM_BYTES_MAX: usize = 256 << 10;

/// The most members of a form.
pub const MEMBERS_MAX: usize = 2000;

/// The longest value, bytes.
pub const VALUE_LEN_MAX: usize = 8192;

/// The longest name of a member, bytes.
const NAME_LEN_MAX: usize = 256;

/// The members of a form, or of one element of a list in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form {
    members: BTreeMap<String, String>,
}

impl Form {
    /// Reads a form.
    ///
    /// # Errors
    /// `MalformedQueryString`.
    pub fn parse(body: &[u8]) -> Result<Self, Fault> {
        let malformed = |what: &str| Fault::new(Code::MalformedQueryString, format!("The form {what}."));
        let text = std::str::from_utf8(body).map_err(|_| malformed("is not UTF-8"))?;
        if text.len() > FORM_BYTES_MAX {
            return Err(malformed("is too long"));
        }
        let mut members = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name), decoded(value));
            let (Some(name), Some(value)) = (name, value) else { return Err(malformed("is not UTF-8")) };
            if name.is_empty() || name.len() > NAME_LEN_MAX {
                return Err(malformed("has a name that is empty or too long"));
            }
            if value.len() > VALUE_LEN_MAX {
                return Err(malformed("has a value that is too long"));
            }
            if members.insert(name, value).is_some() {
                return Err(malformed("has a member twice"));
            }
            if members.len() > MEMBERS_MAX {
                return Err(malformed("has too many members"));
            }
        }
        Ok(Self { members })
    }

    /// The text of a member; `None` without one. One that is empty is one.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.members.get(name).map(String::as_str)
    }

    /// The text of a member that says something.
    #[must_use]
    pub fn said(&self, name: &str) -> Option<&str> {
        self.text(name).filter(|text| !text.is_empty())
    }

    /// The text of a member that must be there.
    ///
    /// # Errors
    /// `MissingParameter`, and `InvalidParameterValue` when it is empty.
    pub fn required(&self, name: &str) -> Result<&str, Fault> {
        match self.text(name) {
            None => {
                let message = format!("The request must contain the parameter {name}.");
                Err(Fault::new(Code::MissingParameter, message))
            }
            Some("") => Err(Fault::value(format!("The parameter {name} must be provided and must not be blank."))),
            Some(text) => Ok(text),
        }
    }

    /// A truth.
    ///
    /// # Errors
    /// `InvalidParameterValue` for another word than `true` and `false`.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, Fault> {
        match self.said(name) {
            None => Ok(None),
            Some(word) if word.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(word) if word.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(_) => Err(Fault::value(format!("The parameter {name} must be true or false."))),
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// `InvalidParameterValue` for what is none, or negative.
    pub fn number(&self, name: &str) -> Result<Option<u32>, Fault> {
        let wrong = || Fault::value(format!("The parameter {name} must be a whole number that is not negative."));
        self.said(name).map(|text| text.parse().map_err(|_| wrong())).transpose()
    }

    /// A time, ms since 1970.
    ///
    /// # Errors
    /// `InvalidParameterValue` for what is no time of ISO 8601, or before 1970.
    pub fn time_ms(&self, name: &str) -> Result<Option<u64>, Fault> {
        let read = |text: &str| {
            let time = DateTime::parse_from_rfc3339(text).ok()?;
            u64::try_from(time.timestamp_millis()).ok()
        };
        let wrong = || Fault::value(format!("The parameter {name} must be a time such as 2026-01-02T03:04:05Z."));
        self.said(name).map(|text| read(text).ok_or_else(wrong)).transpose()
    }

    /// The elements of a list of structures; none without the list.
    ///
    /// # Errors
    /// `InvalidParameterValue` for elements that are not numbered from 1 on.
    pub fn list(&self, name: &str, element: &str) -> Result<Vec<Self>, Fault> {
        let mut elements: BTreeMap<usize, Self> = BTreeMap::new();
        let wrong = || Fault::value(format!("The elements of {name} must be numbered from 1 on."));
        for (path, value) in self.members.range(format!("{name}.")..format!("{name}/")) {
            let mut parts = path.get(name.len() + 1..).unwrap_or_default().splitn(3, '.');
            let (kind, number, rest) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
            if kind != Some(element) && kind != Some("member") {
                return Err(wrong());
            }
            let number = number.and_then(|number| number.parse::<usize>().ok()).ok_or_else(wrong)?;
            if elements.entry(number).or_default().members.insert(rest.to_owned(), value.clone()).is_some() {
                return Err(wrong());
            }
        }
        if !elements.keys().copied().eq(1..=elements.len()) {
            return Err(wrong());
        }
        Ok(elements.into_values().collect())
    }

    /// The elements of a list of texts; none without the list.
    ///
    /// # Errors
    /// As [`Form::list`].
    pub fn texts(&self, name: &str, element: &str) -> Result<Vec<String>, Fault> {
        let text = |mut form: Self| {
            let text = form.members.remove("");
            let wrong = || Fault::value(format!("The elements of {name} must be texts."));
            text.filter(|_| form.members.is_empty()).ok_or_else(wrong)
        };
        self.list(name, element)?.into_iter().map(text).collect()
    }
}

/// `None` for bytes that are no UTF-8.
fn decoded(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Form {
        Form::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_form_of_a_real_client_is_read() {
        let form = form(
            "Action=CreateSnapshot&Version=2015-02-02&ReplicationGroupId=rg1&SnapshotName=bk%2D1&KmsKeyId=&\
             Tags.Tag.1.Key=a+b&Tags.Tag.1.Value=c%26d&Tags.Tag.2.Key=c&SnapshotArns=&ShowNodeGroupConfig=true&\
             MaxRecords=20&StartTime=2026-01-02T03%3A04%3A05.5Z",
        );
        assert_eq!(form.required("SnapshotName"), Ok("bk-1"));
        assert_eq!((form.text("KmsKeyId"), form.said("KmsKeyId"), form.text("Other")), (Some(""), None, None));
        assert_eq!(form.required("KmsKeyId").unwrap_err().code, Code::InvalidParameterValue);
        assert_eq!(form.required("Other").unwrap_err().code, Code::MissingParameter);
        assert_eq!(form.flag("ShowNodeGroupConfig"), Ok(Some(true)));
        assert_eq!(form.number("MaxRecords"), Ok(Some(20)));
        assert_eq!(form.time_ms("StartTime"), Ok(Some(1_767_323_045_500)));
        let tags = form.list("Tags", "Tag").unwrap();
        let pairs: Vec<_> = tags.iter().map(|tag| (tag.text("Key"), tag.text("Value"))).collect();
        assert_eq!(pairs, [(Some("a b"), Some("c&d")), (Some("c"), None)]);
        assert_eq!(form.texts("SnapshotArns", "SnapshotArn"), Ok(vec![]));
    }

    #[test]
    fn lists_within_lists_keep_their_order() {
        let mut text = String::new();
        for n in (1..=12).rev() {
            let inner = format!("A.B.{n}.Zones.Zone.2=z{n}&A.B.{n}.Zones.member.1=y{n}&");
            text.push_str(&inner);
        }
        let form = form(&text);
        let elements = form.list("A", "B").unwrap();
        assert_eq!(elements.len(), 12);
        for (index, element) in elements.iter().enumerate() {
            let n = index + 1;
            assert_eq!(element.texts("Zones", "Zone"), Ok(vec![format!("y{n}"), format!("z{n}")]));
        }
        assert_eq!(form.list("A.B", "1").unwrap_err().code, Code::InvalidParameterValue);
    }

    #[test]
    fn what_is_no_form_is_refused() {
        let long = format!("a={}", "x".repeat(VALUE_LEN_MAX + 1));
        let many: String = (0..=MEMBERS_MAX).map(|n| format!("a{n}=&")).collect::<Vec<_>>().concat();
        for text in ["a=1&a=2", "a=%ff", "=1", long.as_str(), many.as_str()] {
            assert_eq!(Form::parse(text.as_bytes()).unwrap_err().code, Code::MalformedQueryString, "{text:.40}");
        }
        assert!(Form::parse(b"a=\xff").is_err());
        for text in [
            "A.B.2=x",
            "A.B.0=x",
            "A.B.1=x&A.B.3=y",
            "A.B.x=y",
            "A.C.1=x",
            "A.B.1=x&A.B.1.K=y",
            "A.B=x",
            "A.B.01=x&A.B.1=y",
        ] {
            assert_eq!(form(text).texts("A", "B").unwrap_err().code, Code::InvalidParameterValue, "{text}");
        }
        for (name, text) in [("MaxRecords", "-1"), ("MaxRecords", "x"), ("MaxRecords", "99999999999")] {
            assert!(form(&format!("{name}={text}")).number(name).is_err(), "{text}");
        }
        assert!(form("F=yes").flag("F").is_err());
        assert!(form("T=yesterday").time_ms("T").is_err());
    }
}

//! What a KMS key is called: `arn:PARTITION:kms:REGION:ACCOUNT:key/ID`, the ARN of an alias, `alias/NAME`, or the id alone.

use std::str::FromStr;

use crate::error::{Class, Error, Result};

const FORM: &str = "a KMS key is named by arn:aws:kms:REGION:ACCOUNT:key/ID, by alias/NAME, or by its id";

/// The longest name that is taken, bytes.
const NAME_LEN_MAX: usize = 512;

/// The name of a KMS key, well formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyName(String);

impl KeyName {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The region that its ARN tells.
    pub(super) fn region(&self) -> Option<&str> {
        self.0.starts_with("arn:").then(|| self.0.split(':').nth(3))?
    }

    /// Whether it is the ARN of a key, which no other key has.
    pub(super) fn is_key_arn(&self) -> bool {
        self.0.split(':').nth(5).is_some_and(|resource| resource.starts_with("key/"))
    }
}

impl FromStr for KeyName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::new(Class::Usage, "this is no name of a KMS key").hint(FORM);
        let resource = match text.split_once(':') {
            None => text,
            Some(_) => arn_resource(text).ok_or_else(wrong)?,
        };
        let named = match (resource.strip_prefix("alias/"), resource.strip_prefix("key/")) {
            (Some(alias), _) => !alias.is_empty() && alias.split('/').all(|word| word.bytes().all(is_alias_byte)),
            (None, Some(id)) => text.contains(':') && is_word(id),
            (None, None) => !text.contains(':') && is_word(text),
        };
        if named && text.len() <= NAME_LEN_MAX { Ok(Self(text.to_owned())) } else { Err(wrong()) }
    }
}

/// The last part of an ARN of KMS.
fn arn_resource(text: &str) -> Option<&str> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let &[arn, partition, service, region, account, resource] = parts.as_slice() else { return None };
    let is_kms = arn == "arn" && service == "kms" && [partition, region, account].into_iter().all(is_word);
    is_kms.then_some(resource)
}

/// Letters, digits and hyphens, so that ARNs can be names of objects.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn is_alias_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_keys_are_told_from_what_is_none() {
        let key = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        let alias = "arn:aws-cn:kms:cn-north-1:111122223333:alias/a/b_c";
        for (text, region, is_key) in [
            (key, Some("eu-west-1"), true),
            (alias, Some("cn-north-1"), false),
            ("alias/backups", None, false),
            ("mrk-1234abcd12ab34cd56ef1234567890ab", None, false),
        ] {
            let name: KeyName = text.parse().unwrap();
            assert_eq!((name.region(), name.is_key_arn(), name.as_str()), (region, is_key, text));
        }
        for wrong in [
            "",
            "alias/",
            "alias/a b",
            "key/1",
            "arn:aws:kms:eu-west-1:111122223333:key/",
            "arn:aws:kms:eu-west-1:111122223333:key/a/b",
            "arn:aws:kms:eu.west:111122223333:key/1",
            "arn:aws:iam::111122223333:role/x",
            "arn:aws:kms:eu-west-1",
            "k_1",
            "../x",
        ] {
            assert_eq!(wrong.parse::<KeyName>().unwrap_err().class(), Class::Usage, "{wrong}");
        }
    }
}

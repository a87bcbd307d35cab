//! Where a repository is: `file:///dir` or `s3://bucket/prefix?endpoint=URL&region=R&profile=P&style=path|virtual`.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use url::Url;

use super::key;
use crate::error::{Class, Error, Result};

/// What a value of a query must not hold as it is (`+` would be read as a space).
const QUERY_ESCAPES: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'&').add(b'+').add(b'=');

/// The longest value of a query parameter, in bytes.
const VALUE_LEN_MAX: usize = 512;

const FORM: &str =
    "a repository is file:///dir or s3://bucket/prefix?endpoint=URL&region=R&profile=P&style=path|virtual";

/// The URL of a repository. It never holds a secret: credentials in it are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepositoryUrl {
    /// `file:///dir`: a folder, by its absolute path.
    Folder(PathBuf),
    /// `s3://…`: a bucket.
    Bucket(BucketUrl),
}

/// The URL of a repository in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketUrl {
    /// The bucket.
    pub bucket: String,
    /// The beginning of every key, without `/` at either end; may be empty.
    pub prefix: String,
    /// Where the S3 API is, when not at AWS: `http[s]://host[:port]`.
    pub endpoint: Option<String>,
    /// The region, when not from the environment or the profile.
    pub region: Option<String>,
    /// The profile of the AWS configuration files.
    pub profile: Option<String>,
    /// How the bucket is addressed; decided by the presence of an endpoint when not given.
    pub style: Option<Style>,
}

impl RepositoryUrl {
    /// The same place, deeper by these folders, which have `/` between them only.
    #[must_use]
    pub fn below(&self, folders: &str) -> Self {
        match self {
            Self::Folder(dir) => Self::Folder(dir.join(folders)),
            Self::Bucket(url) => {
                let prefix =
                    if url.prefix.is_empty() { folders.to_owned() } else { format!("{}/{folders}", url.prefix) };
                Self::Bucket(BucketUrl { prefix, ..url.clone() })
            }
        }
    }
}

/// How requests name the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `http://endpoint/bucket/key`.
    Path,
    /// `http://bucket.endpoint/key`.
    Virtual,
}

impl FromStr for RepositoryUrl {
    type Err = Error;

    /// Reads a URL.
    ///
    /// # Errors
    /// `Usage`, naming the part that is wrong. A URL with credentials in it is not repeated.
    fn from_str(text: &str) -> Result<Self> {
        let url = Url::parse(text).map_err(|e| usage(format!("not a repository URL: {e}")).hint(FORM))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(usage("a repository URL must not hold credentials")
                .hint("give them by the AWS environment variables or by a profile"));
        }
        if url.fragment().is_some() {
            return Err(usage("a repository URL has no `#` part").hint("write `#` as %23"));
        }
        match url.scheme() {
            "file" => folder(&url),
            "s3" => bucket(&url).map(Self::Bucket),
            other => Err(usage(format!("repository scheme `{other}` is not known")).hint(FORM)),
        }
    }
}

fn usage(message: impl Into<String>) -> Error {
    Error::new(Class::Usage, message)
}

fn folder(url: &Url) -> Result<RepositoryUrl> {
    if url.query().is_some() {
        return Err(usage("a file: repository takes no parameters"));
    }
    if let Some(host) = url.host_str().filter(|host| *host != "localhost") {
        return Err(usage(format!("repository URL names the host `{host}`"))
            .hint("a folder has three slashes and an absolute path: file:///dir"));
    }
    let path = url.to_file_path().map_err(|()| usage("repository URL has no absolute path").hint(FORM))?;
    if path.parent().is_none() {
        return Err(usage("the root folder cannot be a repository").hint("name a folder: file:///dir"));
    }
    Ok(RepositoryUrl::Folder(path))
}

fn bucket(url: &Url) -> Result<BucketUrl> {
    let bucket = url.host_str().unwrap_or_default().to_owned();
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if bucket.len() < 3 || bucket.len() > 63 || !bucket.bytes().all(allowed) || url.port().is_some() {
        return Err(usage("repository URL has no valid bucket: 3 to 63 letters, digits, `.`, `_`, `-`").hint(FORM));
    }
    let decoded: Cow<'_, str> =
        percent_decode_str(url.path()).decode_utf8().map_err(|_| usage("repository prefix is not UTF-8"))?;
    let prefix = decoded.trim_matches('/').to_owned();
    if !prefix.is_empty() {
        key::check(&prefix).map_err(|e| e.at("repository URL"))?;
    }
    let mut parsed = BucketUrl { bucket, prefix, endpoint: None, region: None, profile: None, style: None };
    for (name, value) in url.query_pairs() {
        parsed.set(&name, &value)?;
    }
    Ok(parsed)
}

impl BucketUrl {
    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let bad = |reason: &str| usage(format!("repository parameter `{name}`: {reason}"));
        if value.is_empty() || value.len() > VALUE_LEN_MAX || value.chars().any(char::is_control) {
            return Err(bad("the value is empty, too long or not text"));
        }
        let previous = match name {
            "endpoint" => self.endpoint.replace(endpoint(value)?),
            "region" if !value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') => {
                return Err(bad("a region is made of letters, digits and `-`"));
            }
            "region" => self.region.replace(value.to_owned()),
            "profile" => self.profile.replace(value.to_owned()),
            "style" => self.style.replace(value.parse()?).map(|style| style.to_string()),
            _ => {
                let shown: String = name.chars().take(40).flat_map(char::escape_default).collect();
                return Err(usage(format!("repository parameter `{shown}` is not known"))
                    .hint("the parameters are endpoint, region, profile and style"));
            }
        };
        if previous.is_some() {
            return Err(bad("it is given twice"));
        }
        Ok(())
    }
}

/// Checks the URL of an S3 endpoint; the result has no `/` at its end.
///
/// # Errors
/// `Usage`.
pub(super) fn endpoint(text: &str) -> Result<String> {
    let bad = |reason: &str| usage(format!("S3 endpoint: {reason}")).hint("write it as http[s]://host[:port]");
    let url = Url::parse(text).map_err(|e| bad(&format!("not a URL: {e}")))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("it must not hold credentials"));
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("its scheme is neither http nor https"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("it must not hold parameters"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

impl FromStr for Style {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "path" => Ok(Self::Path),
            "virtual" => Ok(Self::Virtual),
            _ => Err(usage("repository parameter `style`: it is neither `path` nor `virtual`")),
        }
    }
}

impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Path => "path",
            Self::Virtual => "virtual",
        })
    }
}

impl TryFrom<String> for RepositoryUrl {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => f.write_str(&folder_text(path)),
            Self::Bucket(bucket) => bucket.fmt(f),
        }
    }
}

/// A folder as a `file:` URL.
pub(super) fn folder_text(path: &Path) -> String {
    Url::from_file_path(path).map_or_else(|()| format!("file:{}", path.display()), String::from)
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        let style = self.style.map(|style| style.to_string());
        let given = [
            ("endpoint", self.endpoint.as_deref()),
            ("region", self.region.as_deref()),
            ("profile", self.profile.as_deref()),
            ("style", style.as_deref()),
        ];
        let mut mark = '?';
        for (name, value) in given {
            let Some(value) = value else { continue };
            write!(f, "{mark}{name}={}", utf8_percent_encode(value, QUERY_ESCAPES))?;
            mark = '&';
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_urls_are_read_and_written_back_the_same() {
        for text in [
            "file:///var/backups/redis",
            "file:///with%20space",
            "s3://bucket",
            "s3://bucket/a/b-c",
            "s3://My.bucket/p?endpoint=http://127.0.0.1:8610&region=eu-west-1&profile=ops&style=virtual",
            "s3://bucket?endpoint=https://s3.example.com/base&style=path",
        ] {
            assert_eq!(text.parse::<RepositoryUrl>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn slashes_around_the_prefix_do_not_count() {
        let RepositoryUrl::Bucket(url) = "s3://bucket//a/b/".parse().unwrap() else { unreachable!() };
        assert_eq!(url.prefix, "a/b");
        assert_eq!("file://localhost/x".parse::<RepositoryUrl>().unwrap(), RepositoryUrl::Folder("/x".into()));
    }

    #[test]
    fn bad_urls_are_refused_with_the_part_that_is_wrong() {
        for (text, part) in [
            ("", "not a repository URL"),
            ("/var/x", "not a repository URL"),
            ("gs://bucket/x", "`gs`"),
            ("file://dir/x", "`dir`"),
            ("file:///", "root folder"),
            ("file:///x?region=r", "parameters"),
            ("s3://", "bucket"),
            ("s3:///x", "bucket"),
            ("s3://b/x", "bucket"),
            ("s3://bucket:80/x", "bucket"),
            ("s3://bucket/a//b", "empty part"),
            ("s3://bucket/a/.b", "begins with `.`"),
            ("s3://bucket/x?regoin=r", "`regoin`"),
            ("s3://bucket/x?region=a&region=b", "twice"),
            ("s3://bucket/x?region=", "empty"),
            ("s3://bucket/x?style=both", "style"),
            ("s3://bucket/x?endpoint=host:80", "scheme"),
            ("s3://bucket/x?endpoint=http://k:s@host", "credentials"),
            ("s3://key:hidden@bucket/x", "credentials"),
        ] {
            let error = text.parse::<RepositoryUrl>().unwrap_err();
            assert_eq!(error.class(), Class::Usage, "{text}");
            assert!(error.message().contains(part), "{text}: {error}");
            assert!(!error.to_string().contains("hidden"), "{error}");
        }
    }
}

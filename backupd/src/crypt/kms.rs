//! AWS KMS as the holder of a master key: data keys are made, sealed and opened there, and its own key never leaves it.
//!
//! Every call names the key and an encryption context that says which snapshot of which repository it is for: what was sealed for one
//! opens for no other, and policies of KMS may ask for it.

mod failure;
mod grants;
mod name;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use self::failure::failed;
pub use self::grants::KmsGrant;
use self::name::KeyName;
use super::{DataKey, KEY_LEN};
use crate::error::{Class, Error, Result};

/// How often a request is sent in all, before its error is told.
const ATTEMPTS_MAX: u32 = 5;

/// The longest wait between two attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How long a connection may take to be made, and an answer to come.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// What a call is bound to, as pairs of texts. KMS refuses to open what was sealed with others.
pub type Context = BTreeMap<String, String>;

/// A KMS key as flags and configuration name it. It is looked for when it is first needed.
#[derive(Debug, Clone)]
pub struct Kms {
    name: KeyName,
    endpoint: Option<String>,
    key: Arc<OnceCell<KmsKey>>,
}

impl Kms {
    /// The key of this name: its ARN, an alias (`alias/NAME` or its ARN) or its id, the last two in the region of the
    /// environment. `endpoint` is where KMS is, when not at AWS or where the environment says.
    ///
    /// # Errors
    /// `Usage` when it is no name of a KMS key.
    pub fn new(name: &str, endpoint: Option<&str>) -> Result<Self> {
        let endpoint = endpoint.map(str::to_owned);
        if let Some(url) = &endpoint
            && !url.starts_with("http://")
            && !url.starts_with("https://")
        {
            return Err(Error::new(Class::Usage, "the endpoint of KMS is no http:// or https:// URL"));
        }
        Ok(Self { name: name.parse()?, endpoint, key: Arc::default() })
    }

    /// The key as it was named.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Where KMS is, when it was said.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// The key with its ARN. Only a key that was not named by its ARN is asked for, which takes the permission `kms:DescribeKey`.
    ///
    /// # Errors
    /// `Key` when there is none, `StoreAuth` when it may not be looked at, `StoreUnavailable` when KMS does not answer, `Config` when no
    /// region is known.
    pub async fn key(&self) -> Result<&KmsKey> {
        self.key.get_or_try_init(|| Box::pin(self.find())).await
    }

    async fn find(&self) -> Result<KmsKey> {
        let client = client(self.name.region(), self.endpoint.as_deref()).await;
        if client.config().region().is_none() {
            let what = format!("no region is known for the KMS key {}", self.name());
            return Err(Error::new(Class::Config, what).hint("name it by its ARN, or set AWS_REGION"));
        }
        let arn = if self.name.is_key_arn() {
            self.name().to_owned()
        } else {
            let answer = client.describe_key().key_id(self.name()).send().await;
            let found = answer.map_err(|error| failed("look at", self.name(), &error))?;
            found.key_metadata.and_then(|metadata| metadata.arn).unwrap_or_default()
        };
        KmsKey::new(&arn, client, self.endpoint.clone())
    }
}

/// A KMS key that is known by its ARN.
#[derive(Debug, Clone)]
pub struct KmsKey {
    arn: String,
    region: String,
    client: Client,
    endpoint: Option<String>,
}

impl KmsKey {
    fn new(arn: &str, client: Client, endpoint: Option<String>) -> Result<Self> {
        let name: KeyName = arn.parse()?;
        let region = name.region().filter(|_| name.is_key_arn());
        let region =
            region.ok_or_else(|| Error::new(Class::Key, format!("KMS says that the ARN of its key is {arn}")))?;
        Ok(Self { arn: arn.to_owned(), region: region.to_owned(), client, endpoint })
    }

    /// Its ARN.
    #[must_use]
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// Whether one request can take this key and another.
    #[must_use]
    pub fn is_beside(&self, other: &Self) -> bool {
        self.region == other.region && self.endpoint == other.endpoint
    }

    /// A new data key, and the same sealed.
    ///
    /// # Errors
    /// `Key` when the key cannot be used, `StoreAuth` when it may not be, `StoreUnavailable` when KMS does not answer.
    pub async fn generate(&self, context: &Context) -> Result<(DataKey, Vec<u8>)> {
        let request = self.client.generate_data_key().key_id(&self.arn).key_spec(DataKeySpec::Aes256);
        let answer = request.set_encryption_context(Some(pairs(context))).send().await;
        let mut made = answer.map_err(|error| failed("make a data key with", &self.arn, &error))?;
        self.check(made.key_id.as_deref())?;
        let plain = made.plaintext.take().map(Blob::into_inner).unwrap_or_default();
        Ok((self.data_key(plain)?, self.sealed(made.ciphertext_blob)?))
    }

    /// Seals a data key.
    ///
    /// # Errors
    /// As [`KmsKey::generate`].
    pub async fn encrypt(&self, context: &Context, data_key: &DataKey) -> Result<Vec<u8>> {
        let request = self.client.encrypt().key_id(&self.arn).plaintext(Blob::new(data_key.expose().to_vec()));
        let answer = request.set_encryption_context(Some(pairs(context))).send().await;
        let made = answer.map_err(|error| failed("seal the data key with", &self.arn, &error))?;
        self.check(made.key_id.as_deref())?;
        self.sealed(made.ciphertext_blob)
    }

    /// Opens what was sealed with this key and context.
    ///
    /// # Errors
    /// As [`KmsKey::generate`].
    pub async fn decrypt(&self, context: &Context, sealed: Vec<u8>) -> Result<DataKey> {
        let request = self.client.decrypt().key_id(&self.arn).ciphertext_blob(Blob::new(sealed));
        let answer = request.set_encryption_context(Some(pairs(context))).send().await;
        let mut opened = answer.map_err(|error| failed("open the data key with", &self.arn, &error))?;
        // a service that ignores which key was asked for must not pass off what another one sealed
        self.check(opened.key_id.as_deref())?;
        self.data_key(opened.plaintext.take().map(Blob::into_inner).unwrap_or_default())
    }

    /// Seals anew with this key what another one beside it sealed; the data key is not seen here.
    ///
    /// # Errors
    /// As [`KmsKey::generate`], of either key.
    pub async fn reencrypt(&self, from: &Self, context: &Context, sealed: Vec<u8>) -> Result<Vec<u8>> {
        let request = self.client.re_encrypt().ciphertext_blob(Blob::new(sealed));
        let request = request.source_key_id(&from.arn).set_source_encryption_context(Some(pairs(context)));
        let request = request.destination_key_id(&self.arn).set_destination_encryption_context(Some(pairs(context)));
        let both = format!("{} and {}", from.arn, self.arn);
        let made = request.send().await.map_err(|error| failed("seal the data key anew with", &both, &error))?;
        self.check(made.key_id.as_deref())?;
        self.sealed(made.ciphertext_blob)
    }

    fn check(&self, used: Option<&str>) -> Result<()> {
        if used == Some(self.arn.as_str()) {
            return Ok(());
        }
        let what = format!("KMS was asked for the key {} and used {}", self.arn, used.unwrap_or("none"));
        Err(Error::new(Class::Key, what))
    }

    fn data_key(&self, plain: Vec<u8>) -> Result<DataKey> {
        let plain = Zeroizing::new(plain);
        let bytes = <[u8; KEY_LEN]>::try_from(plain.as_slice());
        let bytes =
            bytes.map_err(|_| Error::new(Class::Key, format!("{} gave a data key of another length", self.arn)));
        bytes.map(DataKey::from_bytes)
    }

    fn sealed(&self, blob: Option<Blob>) -> Result<Vec<u8>> {
        let sealed = blob.map(Blob::into_inner).filter(|sealed| !sealed.is_empty());
        sealed.ok_or_else(|| Error::new(Class::Key, format!("{} answered without the sealed data key", self.arn)))
    }
}

fn pairs(context: &Context) -> HashMap<String, String> {
    context.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A client with the credentials of the environment, its profiles, or the machine.
async fn client(region: Option<&str>, endpoint: Option<&str>) -> Client {
    let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX).with_max_backoff(BACKOFF_MAX);
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(ANSWER_TIMEOUT)
        .operation_attempt_timeout(ANSWER_TIMEOUT.saturating_add(CONNECT_TIMEOUT));
    let loader = aws_config::defaults(BehaviorVersion::latest()).retry_config(retries).timeout_config(timeouts.build());
    let loader = match region {
        Some(region) => loader.region(Region::new(region.to_owned())),
        None => loader,
    };
    let loader = match endpoint {
        Some(endpoint) => loader.endpoint_url(endpoint),
        None => loader,
    };
    Client::new(&loader.load().await)
}

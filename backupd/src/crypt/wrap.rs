//! A data key sealed for one master key: `wrap-<key-id>.json` beside the manifest.

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::keyring::MasterKey;
use super::kms::Context;
use super::master::{Binding, Master};
use super::pair::{KeyPair, PublicKey, Sealed};
use super::{DataKey, random};
use crate::canonical::{self, Proof, damaged};
use crate::error::{Class, Error, Result};

/// What a wrap object says. Its proof is a digest, since it is read before any key is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wrap {
    /// 1.
    pub format: u32,
    /// The snapshot whose data key it holds.
    pub snapshot_id: String,
    /// The master key that opens it.
    pub key_id: String,
    /// How it is sealed, which decides what else is there.
    pub algorithm: Algorithm,
    /// `aes-256-gcm`: 12 bytes, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// `aws-kms`: what KMS must be told to open it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Context>,
    /// `hpke-x25519-sha256-aes-256-gcm`: the encapsulated key, 32 bytes, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encapsulated: Option<String>,
    /// The sealed data key, base64.
    pub ciphertext: String,
}

/// How a data key is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// With a key of a keyring file.
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
    /// By KMS.
    AwsKms,
    /// For a public key.
    #[serde(rename = "hpke-x25519-sha256-aes-256-gcm")]
    Hpke,
    /// In a way that this program does not know.
    #[serde(other)]
    Unknown,
}

/// A key's id in the name of its wrap: that of a key of KMS is an ARN, whose `:` and `/` are written as `.`.
#[must_use]
pub fn file_part(key_id: &str) -> String {
    key_id.replace([':', '/'], ".")
}

/// The key's id of a part that [`file_part`] made.
#[must_use]
pub fn key_id_of(part: &str) -> String {
    match part.split('.').collect::<Vec<_>>().as_slice() {
        ["arn", partition, service, region, account, kind, id] => {
            format!("arn:{partition}:{service}:{region}:{account}:{kind}/{id}")
        }
        _ => part.to_owned(),
    }
}

/// The associated data: binds the wrap to its snapshot and its key.
fn associated(snapshot_id: &str, key_id: &str) -> Vec<u8> {
    ["backupd/1 wrap", snapshot_id, key_id].join("\0").into_bytes()
}

/// A new data key, and the bytes of its wrap for `master`.
///
/// # Errors
/// When no randomness is to be had; what KMS says.
pub async fn fresh(binding: Binding<'_>, master: &Master) -> Result<(DataKey, Vec<u8>)> {
    if let Master::Kms(key) = master {
        let context = binding.context();
        let (data_key, sealed) = Box::pin(key.generate(&context)).await?;
        return Ok((data_key, of_kms(binding, key.arn(), context, &sealed)?));
    }
    let data_key = DataKey::random()?;
    let file = seal(binding, &data_key, master).await?;
    Ok((data_key, file))
}

/// Seals `data_key` for `master`; the bytes of the wrap object.
///
/// # Errors
/// When no randomness is to be had; what KMS says.
pub async fn seal(binding: Binding<'_>, data_key: &DataKey, master: &Master) -> Result<Vec<u8>> {
    match master {
        Master::File(key) => seal_with(binding, data_key, key),
        Master::Kms(key) => {
            let context = binding.context();
            let sealed = Box::pin(key.encrypt(&context, data_key)).await?;
            of_kms(binding, key.arn(), context, &sealed)
        }
        Master::Pair(KeyPair { public, .. }) | Master::Public(public) => seal_for(binding, data_key, public),
    }
}

/// Seals anew for `master` what another key sealed, where KMS does so without showing the data key.
///
/// # Errors
/// As [`open`], and what KMS says.
pub async fn reseal(
    name: &str,
    wrap: &Wrap,
    binding: Binding<'_>,
    from: &Master,
    master: &Master,
) -> Result<Option<Vec<u8>>> {
    match (from, master) {
        (Master::Kms(from), Master::Kms(key)) if key.is_beside(from) => {
            let (context, sealed) = sealed_by_kms(name, wrap, binding)?;
            let sealed = Box::pin(key.reencrypt(from, &context, sealed)).await?;
            of_kms(binding, key.arn(), context, &sealed).map(Some)
        }
        _ => Ok(None),
    }
}

fn seal_with(binding: Binding<'_>, data_key: &DataKey, master: &MasterKey) -> Result<Vec<u8>> {
    let nonce: [u8; 12] = random()?;
    let aad = associated(binding.snapshot_id, &master.id);
    let ciphertext = Aes256Gcm::new(&Key::<Aes256Gcm>::from(*master.expose()))
        .encrypt(&Nonce::from(nonce), Payload { msg: data_key.expose(), aad: &aad })
        .map_err(|_| Error::new(Class::Unforeseen, "the data key cannot be sealed"))?;
    let wrap =
        Wrap { nonce: Some(BASE64.encode(nonce)), ..Wrap::new(binding, &master.id, Algorithm::Aes256Gcm, &ciphertext) };
    canonical::seal(&wrap, Proof::Digest)
}

fn seal_for(binding: Binding<'_>, data_key: &DataKey, public: &PublicKey) -> Result<Vec<u8>> {
    let aad = associated(binding.snapshot_id, &public.id);
    let Sealed { encapsulated, ciphertext } = public.seal(&aad, data_key.expose())?;
    let wrap = Wrap {
        encapsulated: Some(BASE64.encode(encapsulated)),
        ..Wrap::new(binding, &public.id, Algorithm::Hpke, &ciphertext)
    };
    canonical::seal(&wrap, Proof::Digest)
}

fn of_kms(binding: Binding<'_>, arn: &str, context: Context, sealed: &[u8]) -> Result<Vec<u8>> {
    let wrap = Wrap { context: Some(context), ..Wrap::new(binding, arn, Algorithm::AwsKms, sealed) };
    canonical::seal(&wrap, Proof::Digest)
}

impl Wrap {
    fn new(binding: Binding<'_>, key_id: &str, algorithm: Algorithm, ciphertext: &[u8]) -> Self {
        Self {
            format: 1,
            snapshot_id: binding.snapshot_id.to_owned(),
            key_id: key_id.to_owned(),
            algorithm,
            nonce: None,
            context: None,
            encapsulated: None,
            ciphertext: BASE64.encode(ciphertext),
        }
    }
}

/// Reads a wrap object (`name` is for messages) and checks that it belongs to this snapshot and key.
///
/// # Errors
/// `Verification` when it is damaged or another's.
pub fn parse(name: &str, file: &[u8], snapshot_id: &str, key_id: &str) -> Result<Wrap> {
    let wrap: Wrap = canonical::open(name, canonical::parse(name, file)?, Proof::Digest)?;
    if wrap.format != 1 || wrap.algorithm == Algorithm::Unknown {
        let what = format!("{name}: a wrap of format {} is sealed in a way that is not known", wrap.format);
        return Err(Error::new(Class::Version, what).hint("a newer backupd wrote it: use that version"));
    }
    if wrap.snapshot_id != snapshot_id || wrap.key_id != key_id {
        return Err(damaged(name, "it belongs to another snapshot or another key"));
    }
    let members = [wrap.nonce.is_some(), wrap.context.is_some(), wrap.encapsulated.is_some()];
    let expected = match wrap.algorithm {
        Algorithm::Aes256Gcm => [true, false, false],
        Algorithm::AwsKms => [false, true, false],
        Algorithm::Hpke => [false, false, true],
        Algorithm::Unknown => [false; 3],
    };
    if members == expected { Ok(wrap) } else { Err(damaged(name, "its members are not those of its algorithm")) }
}

/// Opens a wrap with the master key that it names.
///
/// # Errors
/// `Key` when this is not the key that sealed it; `Verification` when its fields have impossible lengths or it is bound to another
/// snapshot or repository; what KMS says.
pub async fn open(name: &str, wrap: &Wrap, binding: Binding<'_>, master: &Master) -> Result<DataKey> {
    match master {
        Master::File(key) => open_with(name, wrap, key),
        Master::Kms(key) => {
            let (context, sealed) = sealed_by_kms(name, wrap, binding)?;
            Box::pin(key.decrypt(&context, sealed)).await.map_err(|error| error.at(name))
        }
        Master::Pair(pair) => open_with_pair(name, wrap, pair),
        Master::Public(key) => {
            Err(Error::new(Class::Key, format!("{name}: only the private key of {} opens it", key.id)))
        }
    }
}

fn open_with_pair(name: &str, wrap: &Wrap, pair: &KeyPair) -> Result<DataKey> {
    let encapsulated = wrap.encapsulated.as_deref().ok_or_else(|| damaged(name, "it is not for a public key"))?;
    let sealed = Sealed { encapsulated: decoded(name, encapsulated)?, ciphertext: decoded(name, &wrap.ciphertext)? };
    let plain = pair.open(&associated(&wrap.snapshot_id, &wrap.key_id), sealed).ok_or_else(|| {
        Error::new(Class::Key, format!("{name}: the private key of {} does not open it", pair.public.id))
            .hint("it was made for another key pair, or is damaged: ask who granted it to grant it again")
    })?;
    let plain = <[u8; 32]>::try_from(plain.as_slice()).map_err(|_| damaged(name, "the data key is not 32 bytes"))?;
    Ok(DataKey::from_bytes(plain))
}

fn open_with(name: &str, wrap: &Wrap, master: &MasterKey) -> Result<DataKey> {
    let nonce = wrap.nonce.as_deref().ok_or_else(|| damaged(name, "it is not for a key of a key file"))?;
    let nonce = <[u8; 12]>::try_from(decoded(name, nonce)?).map_err(|_| damaged(name, "its nonce is not 12 bytes"))?;
    let ciphertext = decoded(name, &wrap.ciphertext)?;
    let aad = associated(&wrap.snapshot_id, &wrap.key_id);
    let plain = Aes256Gcm::new(&Key::<Aes256Gcm>::from(*master.expose()))
        .decrypt(&Nonce::from(nonce), Payload { msg: &ciphertext, aad: &aad })
        .map(Zeroizing::new)
        .map_err(|_| {
            Error::new(Class::Key, format!("{name}: key {} of the key file does not open it", master.id))
                .hint("the key file holds another secret under this id: use the key file that made the snapshot")
        })?;
    let plain = <[u8; 32]>::try_from(plain.as_slice()).map_err(|_| damaged(name, "the data key is not 32 bytes"))?;
    Ok(DataKey::from_bytes(plain))
}

/// What KMS is to open, once it is sure that it is of this snapshot.
fn sealed_by_kms(name: &str, wrap: &Wrap, binding: Binding<'_>) -> Result<(Context, Vec<u8>)> {
    let context = binding.context();
    if wrap.context.as_ref() != Some(&context) {
        return Err(damaged(name, "its encryption context is that of another snapshot or repository"));
    }
    Ok((context, decoded(name, &wrap.ciphertext)?))
}

fn decoded(name: &str, text: &str) -> Result<Vec<u8>> {
    BASE64.decode(text).map_err(|_| damaged(name, "a field is not base64"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypt::keyring::Keyring;

    const BINDING: Binding<'_> = Binding { repository: "r", cluster: "c", snapshot_id: "s1" };

    #[tokio::test]
    async fn a_wrap_opens_with_its_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let key =
            |name: &str| Master::File(Keyring::generate(&dir.path().join(name)).unwrap().active().unwrap().clone());
        let (key, other) = (key("a"), key("b"));
        let (data, file) = fresh(BINDING, &key).await.unwrap();
        let wrap = parse("wrap", &file, "s1", key.id()).unwrap();
        assert_eq!(open("wrap", &wrap, BINDING, &key).await.unwrap().expose(), data.expose());
        assert_eq!(open("wrap", &wrap, BINDING, &other).await.unwrap_err().class(), Class::Key);
        assert_eq!(parse("wrap", &file, "s2", key.id()).unwrap_err().class(), Class::Verification);
    }

    #[tokio::test]
    async fn a_wrap_for_a_public_key_opens_with_its_pair_only() {
        let (pair, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let data = DataKey::random().unwrap();
        let file = seal(BINDING, &data, &Master::Public(pair.public.clone())).await.unwrap();
        let wrap = parse("wrap", &file, "s1", &pair.public.id).unwrap();
        let open = |wrap: Wrap, master: Master| async move { open("wrap", &wrap, BINDING, &master).await };
        let opened = open(wrap.clone(), Master::Pair(pair.clone())).await.unwrap();
        assert_eq!(opened.expose(), data.expose());
        let moved = Wrap { snapshot_id: "s2".to_owned(), ..wrap.clone() };
        for (wrap, master) in [
            (wrap.clone(), Master::Pair(other)),
            (wrap, Master::Public(pair.public.clone())),
            (moved, Master::Pair(pair)),
        ] {
            assert_eq!(open(wrap, master).await.unwrap_err().class(), Class::Key);
        }
    }

    #[test]
    fn members_of_another_algorithm_and_unknown_ones_are_refused() {
        let wrap = Wrap::new(BINDING, "k-1", Algorithm::Aes256Gcm, b"x");
        let class = |wrap: &Wrap| {
            let file = canonical::seal(wrap, Proof::Digest).unwrap();
            parse("wrap", &file, "s1", "k-1").map_or_else(|error| error.class(), |_| Class::Unforeseen)
        };
        assert_eq!(class(&wrap), Class::Verification, "no nonce");
        let with = |context| Wrap { nonce: Some("n".to_owned()), context, ..wrap.clone() };
        assert_eq!(class(&with(None)), Class::Unforeseen);
        assert_eq!(class(&with(Some(BINDING.context()))), Class::Verification);
        assert_eq!(class(&Wrap { algorithm: Algorithm::Unknown, ..with(None) }), Class::Version);
    }

    #[test]
    fn arns_are_names_of_objects_and_come_back() {
        let arn = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab";
        assert_eq!(file_part(arn), "arn.aws.kms.eu-west-1.111122223333.key.1234abcd-12ab");
        for id in [arn, "k-0011223344556677"] {
            assert_eq!(key_id_of(&file_part(id)), id);
        }
    }
}

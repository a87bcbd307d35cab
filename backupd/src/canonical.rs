//! The strict JSON of every document in a repository.
//!
//! A document is a JSON object in canonical form: keys sorted by bytes, no white space, integers only. Its
//! member `"digest"` is the SHA-256, in hex, of the canonical form of the object without that member, so that
//! damage is noticed by anyone. Where there is a key it has a member `"mac"` too: HMAC-SHA256 over the
//! object without both, so that forgery is noticed by who holds the key. A reader refuses a file whose bytes
//! are not exactly the canonical form, so any change of any byte is noticed.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::error::{Class, Error, Result};

/// The largest document that is read, bytes.
pub const DOCUMENT_BYTES_MAX: u64 = 64 << 20;

const DIGEST: &str = "digest";
const MAC: &str = "mac";

/// What proves a document.
#[derive(Clone, Copy)]
pub enum Proof<'a> {
    /// SHA-256: notices accidents.
    Digest,
    /// HMAC-SHA256 under this key: notices forgery too.
    Mac(&'a [u8; 32]),
}

impl std::fmt::Debug for Proof<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.member())
    }
}

impl Proof<'_> {
    fn member(self) -> &'static str {
        match self {
            Self::Digest => DIGEST,
            Self::Mac(_) => MAC,
        }
    }

    fn matches(self, body: &[u8], hex_proof: &str) -> Result<bool> {
        // upper-case digits would decode to the same proof, and are not canonical
        let Some(given) = hex::decode(hex_proof).ok().filter(|given| hex::encode(given) == hex_proof) else {
            return Ok(false);
        };
        Ok(match self {
            Self::Digest => Sha256::digest(body).as_slice() == given.as_slice(),
            Self::Mac(key) => hmac(key, body)?.verify_slice(&given).is_ok(),
        })
    }

    fn hex(self, body: &[u8]) -> Result<String> {
        Ok(match self {
            Self::Digest => hex::encode(Sha256::digest(body)),
            Self::Mac(key) => hex::encode(hmac(key, body)?.finalize().into_bytes()),
        })
    }
}

fn hmac(key: &[u8; 32], body: &[u8]) -> Result<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key)
        .map_err(|_| Error::new(Class::Unforeseen, "the key of a MAC has an impossible length"))?;
    mac.update(body);
    Ok(mac)
}

/// The bytes of a document with its proof.
///
/// # Errors
/// When the document is not an object, or holds a number that is not an integer.
pub fn seal<T: Serialize>(document: &T, proof: Proof<'_>) -> Result<Vec<u8>> {
    let mut object = match serde_json::to_value(document) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Err(Error::new(Class::Unforeseen, "a document is not a JSON object")),
        Err(error) => return Err(Error::new(Class::Unforeseen, format!("a document cannot be written: {error}"))),
    };
    if let Proof::Mac(_) = proof {
        let mac = proof.hex(&bytes(&object)?)?;
        object.insert(MAC.to_owned(), Value::String(mac));
    }
    let digest = Proof::Digest.hex(&bytes(&object)?)?;
    object.insert(DIGEST.to_owned(), Value::String(digest));
    bytes(&object)
}

/// Reads a document and checks its form and its digest, but not its MAC. Use it to learn which key that needs.
///
/// # Errors
/// `Verification` when the bytes are not canonical JSON of an object, or do not match their digest.
pub fn parse(name: &str, file: &[u8]) -> Result<Map<String, Value>> {
    let object: Map<String, Value> =
        serde_json::from_slice(file).map_err(|error| damaged(name, &format!("it is not a JSON object ({error})")))?;
    if bytes(&object)? != file {
        return Err(damaged(name, "it is not in canonical form"));
    }
    let mut digested = object.clone();
    check(name, &mut digested, Proof::Digest)?;
    Ok(object)
}

/// Checks the proof of a parsed document and returns what it says.
///
/// # Errors
/// `Verification` when the proof is missing or wrong or the members are not those expected.
pub fn open<T: DeserializeOwned>(name: &str, mut object: Map<String, Value>, proof: Proof<'_>) -> Result<T> {
    if let Proof::Mac(_) = proof {
        object.remove(DIGEST);
    }
    check(name, &mut object, proof)?;
    members(name, object)
}

/// Takes the proof's member out and checks it against what is left.
fn check(name: &str, object: &mut Map<String, Value>, proof: Proof<'_>) -> Result<()> {
    let Some(Value::String(given)) = object.remove(proof.member()) else {
        return Err(damaged(name, &format!("its `{}` is missing", proof.member())));
    };
    if proof.matches(&bytes(object)?, &given)? {
        return Ok(());
    }
    Err(damaged(name, &format!("its `{}` does not match its content", proof.member())))
}

/// The members of a parsed document, its proof unchecked.
///
/// # Errors
/// `Verification` when the members are not those expected.
pub fn members<T: DeserializeOwned>(name: &str, mut object: Map<String, Value>) -> Result<T> {
    object.remove(MAC);
    object.remove(DIGEST);
    serde_json::from_value(Value::Object(object)).map_err(|error| damaged(name, &format!("a member is wrong: {error}")))
}

fn bytes(object: &Map<String, Value>) -> Result<Vec<u8>> {
    // serde_json keeps the members of a Map sorted, writes no white space and integers as they are
    serde_json::to_vec(object)
        .map_err(|error| Error::new(Class::Unforeseen, format!("a document cannot be written: {error}")))
}

/// The error for a stored object that is not what it must be.
#[must_use]
pub fn damaged(name: &str, why: &str) -> Error {
    Error::new(Class::Verification, format!("{name} is damaged: {why}"))
        .hint("the stored object was changed, cut or replaced after it was written; use another copy of the snapshot")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Note {
        text: String,
        a_number: u64,
    }

    fn read(file: &[u8], proof: Proof<'_>) -> Result<Note> {
        open("note", parse("note", file)?, proof)
    }

    #[test]
    fn the_form_is_fixed() {
        let file = seal(&Note { text: "ä\n".into(), a_number: 7 }, Proof::Digest).unwrap();
        let text = String::from_utf8(file).unwrap();
        assert!(text.starts_with(r#"{"a_number":7,"digest":""#) && text.ends_with(r#"","text":"ä\n"}"#), "{text}");
    }

    #[test]
    fn any_changed_bit_and_any_cut_is_noticed() {
        let note = Note { text: "hello \"you\"".into(), a_number: 10 };
        for proof in [Proof::Digest, Proof::Mac(&[7; 32])] {
            let file = seal(&note, proof).unwrap();
            assert_eq!(read(&file, proof).unwrap(), note);
            for bit in 0..file.len() * 8 {
                let mut changed = file.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(read(&changed, proof).unwrap_err().class(), Class::Verification, "bit {bit}");
            }
            for length in 0..file.len() {
                assert!(read(&file[..length], proof).is_err());
            }
            assert!(read(&[file.as_slice(), b" "].concat(), proof).is_err());
        }
        let file = seal(&note, Proof::Mac(&[7; 32])).unwrap();
        assert!(read(&file, Proof::Mac(&[8; 32])).is_err());
        // a forger can make the digest fit, but not the MAC
        let forged = seal(&Note { a_number: 11, ..note }, Proof::Digest).unwrap();
        assert!(read(&forged, Proof::Mac(&[7; 32])).is_err());
    }
}

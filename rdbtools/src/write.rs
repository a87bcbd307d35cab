//! Writes the parts of an RDB that are not raw values: header, lengths, strings, opcodes, checksum.

use crate::atom::StringHead;
use crate::crc64::Crc64;
use crate::scan::{WHEN_MARK, code};
use crate::sink::Key;
use crate::value::ModuleId;
use crate::version::RdbVersion;

/// Appends a length in its shortest form.
pub fn put_length(out: &mut Vec<u8>, length: u64) {
    match length {
        0..=0x3f => out.extend(length.to_be_bytes().last()),
        0x40..=0x3fff => out.extend((length | 0x4000).to_be_bytes().last_chunk::<2>().copied().unwrap_or_default()),
        0x4000..=0xffff_ffff => {
            out.push(0x80);
            out.extend(length.to_be_bytes().last_chunk::<4>().copied().unwrap_or_default());
        }
        _ => {
            out.push(0x81);
            out.extend(length.to_be_bytes());
        }
    }
}

/// Appends a string as it is.
pub fn put_string(out: &mut Vec<u8>, string: &[u8]) {
    put_length(out, string.len() as u64);
    out.extend_from_slice(string);
}

/// Appends the head of a string; its body must follow.
pub fn put_string_head(out: &mut Vec<u8>, head: StringHead) {
    match head {
        StringHead::Plain(length) => put_length(out, length),
        StringHead::Int { value, width } => {
            out.push(match width {
                1 => 0xc0,
                2 => 0xc1,
                _ => 0xc2,
            });
            out.extend(value.to_le_bytes().iter().take(usize::from(width)));
        }
        StringHead::Lzf { compressed, length } => {
            out.push(0xc3);
            put_length(out, compressed);
            put_length(out, length);
        }
    }
}

/// Appends an aux field.
pub fn put_aux(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(code::AUX);
    put_string(out, name);
    put_string(out, value);
}

/// Appends a library of functions.
pub fn put_function(out: &mut Vec<u8>, source: &[u8]) {
    out.push(code::FUNCTION);
    put_string(out, source);
}

/// Appends a template of hashes (Redis 8.10), which must stand before the hashes that refer to it.
pub fn put_hash_template(out: &mut Vec<u8>, id: u64, fields: &[Vec<u8>]) {
    out.push(code::HASH_TEMPLATE);
    put_length(out, id);
    put_length(out, fields.len() as u64);
    fields.iter().for_each(|field| put_string(out, field));
}

/// Appends what stands before the parts of module data that belongs to no key; the parts must follow.
pub fn put_module_aux(out: &mut Vec<u8>, module: ModuleId, when: u64) {
    out.push(code::MODULE_AUX);
    put_length(out, module.0);
    put_length(out, WHEN_MARK);
    put_length(out, when);
}

/// Appends the opcode that says in which database the keys after it are.
pub fn put_select_db(out: &mut Vec<u8>, db: u64) {
    out.push(code::SELECT_DB);
    put_length(out, db);
}

/// Appends everything of an entry that stands before its value, with an expiry of the caller's choice.
/// The raw value must follow.
pub fn put_key(out: &mut Vec<u8>, key: &Key<'_>, expires_at_ms: Option<i64>) {
    if let Some(at) = expires_at_ms {
        out.push(code::EXPIRE_MS);
        out.extend(at.to_le_bytes());
    }
    if let Some(idle) = key.idle_s {
        out.push(code::IDLE);
        put_length(out, idle);
    }
    if let Some(frequency) = key.frequency {
        out.extend([code::FREQUENCY, frequency]);
    }
    out.extend_from_slice(key.meta);
    out.push(key.value_type.code());
    put_string_head(out, key.head);
    out.extend_from_slice(key.body);
}

/// Appends the end opcode. Where the version has a checksum, that of all bytes up to here must follow.
pub fn put_end(out: &mut Vec<u8>) {
    out.push(code::END);
}

/// Appends end opcode and checksum to a whole RDB that is held in memory.
pub fn finish(out: &mut Vec<u8>, version: RdbVersion) {
    put_end(out);
    if version.has_checksum() {
        let mut crc = Crc64::new();
        crc.update(out);
        out.extend(crc.value().to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atom;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lengths_round_trip(bits in 0u32..64, low in any::<u64>()) {
            let length = low >> bits;
            let mut out = Vec::new();
            put_length(&mut out, length);
            prop_assert_eq!(atom::length(&out), Ok(Some((length, out.len()))));
        }

        #[test]
        fn string_heads_round_trip(value in any::<i32>(), a in 1u64.., b in any::<u64>()) {
            let mut heads = vec![
                StringHead::Plain(a),
                StringHead::Int { value, width: 4 },
                StringHead::Lzf { compressed: a, length: b },
            ];
            heads.extend(i8::try_from(value % 128).map(|small| StringHead::Int { value: small.into(), width: 1 }));
            heads.extend(i16::try_from(value % 32768).map(|small| StringHead::Int { value: small.into(), width: 2 }));
            for head in heads {
                let mut out = Vec::new();
                put_string_head(&mut out, head);
                prop_assert_eq!(atom::string_head(&out), Ok(Some((head, out.len()))));
            }
        }
    }
}

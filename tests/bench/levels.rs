//! How fast one core makes frames, by shape of the data and zstd level, beside what its stages need each alone.

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce as OtherNonce, UnboundKey};
use backupd::bkd::{Cipher, Compression, Header, Kind, Sealer};
use backupd::crypt::DataKey;
use sha2::{Digest as _, Sha256};

use crate::meter::median_s;
use crate::{Asked, mb, shapes};

/// zstd levels.
const LEVELS: [i32; 4] = [-5, -1, 1, 3];
/// Bytes of a frame, as in a snapshot.
const FRAME: usize = 1 << 20;

/// MB of RDB a second on one core. The ceiling is what the stages need one after another when nothing is between them: zstd into a buffer that is
/// there, AES-256-GCM in place, and the two digests.
pub(crate) fn levels(asked: &Asked) {
    println!("\nMB of RDB a second on one core, {:.0} MB, median of {} runs", mb(asked.shard_bytes as u64), asked.runs);
    println!(
        "{:<8}{:>6}{:>8}{:>8}{:>9}{:>9}{:>12}{:>9}{:>9}{:>7}{:>7}{:>12}",
        "shape",
        "level",
        "stored",
        "zstd",
        "AES-GCM",
        "aws-lc",
        "SHA stored",
        "SHA RDB",
        "ceiling",
        "ours",
        "ratio",
        "with aws-lc"
    );
    for shape in shapes::ALL {
        let mut rdb = Vec::new();
        shape.write(asked.shard_bytes as u64, &mut rdb).unwrap();
        let frames: Vec<&[u8]> = rdb.chunks(FRAME).collect();
        LEVELS.into_iter().for_each(|level| row(asked, shape.name(), level, &frames));
    }
}

fn row(asked: &Asked, shape: &str, level: i32, frames: &[&[u8]]) {
    let median = |work: &mut dyn FnMut()| median_s(asked.runs, work);
    let plain: usize = frames.iter().map(|frame| frame.len()).sum();
    let mut zstd = zstd::bulk::Compressor::new(level).unwrap();
    let mut room = vec![0; zstd::zstd_safe::compress_bound(FRAME)];
    // what does not shrink is stored as it is
    let mut packed: Vec<Vec<u8>> = Vec::new();
    for frame in frames {
        let length = zstd.compress_to_buffer(frame, &mut room[..]).unwrap();
        packed.push(if length < frame.len() { room[..length].to_vec() } else { frame.to_vec() });
    }
    let stored: usize = packed.iter().map(Vec::len).sum();
    let zstd_s = median(&mut || {
        assert!(frames.iter().all(|frame| zstd.compress_to_buffer(frame, &mut room[..]).is_ok()));
    });
    let mut sealed = packed.clone();
    let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from([7; 32]));
    let aes_s = median(&mut || {
        let seal = |frame: &mut Vec<u8>| {
            cipher.encrypt_inout_detached(&Nonce::from([1; 12]), b"", frame.as_mut_slice().into())
        };
        assert!(sealed.iter_mut().all(|frame| seal(frame).is_ok()));
    });
    let other = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
    let other_s = median(&mut || {
        let nonce = || OtherNonce::assume_unique_for_key([1; 12]);
        assert!(sealed.iter_mut().all(|frame| other.seal_in_place_separate_tag(nonce(), Aad::empty(), frame).is_ok()));
    });
    let digest = |frames: &mut dyn Iterator<Item = &[u8]>| {
        let mut digest = Sha256::new();
        frames.for_each(|frame| digest.update(frame));
        assert_eq!(digest.finalize().len(), 32);
    };
    let stored_s = median(&mut || digest(&mut packed.iter().map(Vec::as_slice)));
    let plain_s = median(&mut || digest(&mut frames.iter().copied()));
    let ours = sealer(level);
    let ours_s = median(&mut || {
        let (mut of_rdb, mut of_stored) = (Sha256::new(), Sha256::new());
        for (frame, number) in frames.iter().zip(0..) {
            of_rdb.update(frame);
            of_stored.update(ours.seal(number, Kind::Data, frame).unwrap());
        }
        assert_ne!(of_rdb.finalize(), of_stored.finalize());
    });
    let rate = |seconds: f64| mb(plain as u64) / seconds;
    let ceiling_s = zstd_s + aes_s + stored_s + plain_s;
    println!(
        "{shape:<8}{level:>6}{:>8.3}{:>8.0}{:>9.0}{:>9.0}{:>12.0}{:>9.0}{:>9.0}{:>7.0}{:>7.2}{:>12.0}",
        stored as f64 / plain as f64,
        rate(zstd_s),
        rate(aes_s),
        rate(other_s),
        rate(stored_s),
        rate(plain_s),
        rate(ceiling_s),
        rate(ours_s),
        ceiling_s / ours_s,
        rate(ours_s - aes_s + other_s)
    );
}

fn sealer(level: i32) -> Sealer {
    let key = DataKey::random().unwrap();
    let header = Header::new(Cipher::Aes256Gcm, Compression::Zstd, "20261125T000000Z-00000000", 0, 1).unwrap();
    let key = header.object_key(Some(&key)).unwrap();
    Sealer::new(&header, &header.encode(&key), &key, level)
}

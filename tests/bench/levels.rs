//! How fast one core makes frames, by shape of the data and zstd level, beside what its stages reach alone.

use backupd::bkd::{Cipher, Compression, Header, Kind, Sealer};
use backupd::crypt::DataKey;
use sha2::{Digest as _, Sha256};

use crate::meter::median_s;
use crate::{Asked, mb, shapes};

/// zstd levels.
const LEVELS: [i32; 4] = [-5, -1, 1, 3];
/// Bytes of a frame, as in a snapshot.
const FRAME: usize = 1 << 20;

/// MB of RDB a second on one core.
pub(crate) fn levels(asked: &Asked) {
    println!("\nMB of RDB a second on one core, {:.0} MB, median of {} runs", mb(asked.shard_bytes as u64), asked.runs);
    println!(
        "{:<8}{:>6}{:>9}{:>10}{:>10}{:>12}{:>12}{:>12}{:>8}",
        "shape", "level", "stored", "zstd", "AES-GCM", "SHA stored", "SHA RDB", "together", "of sum"
    );
    for shape in shapes::ALL {
        let mut rdb = Vec::new();
        shape.write(asked.shard_bytes as u64, &mut rdb).unwrap();
        let frames: Vec<&[u8]> = rdb.chunks(FRAME).collect();
        LEVELS.into_iter().for_each(|level| row(asked, shape.name(), level, &frames));
    }
}

fn row(asked: &Asked, shape: &str, level: i32, frames: &[&[u8]]) {
    let plain: usize = frames.iter().map(|frame| frame.len()).sum();
    let median = |work: &mut dyn FnMut()| median_s(asked.runs, work);
    // what does not shrink is stored as it is
    let pack = |frame: &[u8]| {
        let packed = zstd::bulk::compress(frame, level).unwrap();
        if packed.len() < frame.len() { packed } else { frame.to_vec() }
    };
    let packed: Vec<Vec<u8>> = frames.iter().map(|frame| pack(frame)).collect();
    let stored: usize = packed.iter().map(Vec::len).sum();
    let zstd_s = median(&mut || assert_eq!(frames.iter().map(|frame| pack(frame).len()).sum::<usize>(), stored));
    let plain_sealer = sealer(Compression::None, level);
    let aes_s = median(&mut || {
        assert!(packed.iter().zip(0..).all(|(frame, number)| plain_sealer.seal(number, Kind::Data, frame).is_ok()));
    });
    let digest = |frames: &mut dyn Iterator<Item = &[u8]>| {
        let mut digest = Sha256::new();
        frames.for_each(|frame| digest.update(frame));
        assert_eq!(digest.finalize().len(), 32);
    };
    let stored_s = median(&mut || digest(&mut packed.iter().map(Vec::as_slice)));
    let plain_s = median(&mut || digest(&mut frames.iter().copied()));
    let whole = sealer(Compression::Zstd, level);
    let together_s = median(&mut || {
        let (mut of_rdb, mut of_stored) = (Sha256::new(), Sha256::new());
        for (frame, number) in frames.iter().zip(0..) {
            of_rdb.update(frame);
            of_stored.update(whole.seal(number, Kind::Data, frame).unwrap());
        }
        assert_ne!(of_rdb.finalize(), of_stored.finalize());
    });
    let rate = |seconds: f64| mb(plain as u64) / seconds;
    let sum = zstd_s + aes_s + stored_s + plain_s;
    println!(
        "{shape:<8}{level:>6}{:>9.3}{:>10.0}{:>10.0}{:>12.0}{:>12.0}{:>12.0}{:>8.2}",
        stored as f64 / plain as f64,
        rate(zstd_s),
        rate(aes_s),
        rate(stored_s),
        rate(plain_s),
        rate(together_s),
        sum / together_s
    );
}

fn sealer(compression: Compression, level: i32) -> Sealer {
    let key = DataKey::random().unwrap();
    let header = Header::new(Cipher::Aes256Gcm, compression, "20261125T000000Z-00000000", 0, 1).unwrap();
    let key = header.object_key(Some(&key)).unwrap();
    Sealer::new(&header, &header.encode(&key), &key, level)
}

//! What a capture costs: CPU by stage, memory at two sizes, and what the primary notices.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backupd::bkd::{Cipher, Compression, Header, Kind, Sealer};
use backupd::crypt::DataKey;
use rdbtools::ReportSink;
use rdbtools::scan::Scanner;
use sha2::{Digest as _, Sha256};

use crate::harness::server::{Options, Server};
use crate::harness::{nodes, process};
use crate::meter::{Cost, median_s};
use crate::{Asked, Source, backupd, mb, shapes, snapshot};

/// Commands a second of the steady workload.
const RATE: u32 = 2000;
/// How long each half of the workload runs.
const WORKLOAD: Duration = Duration::from_secs(40);
/// Bytes of a frame, as in a snapshot.
const FRAME: usize = 1 << 20;

/// CPU seconds per GB of RDB of each stage, one after another on one core.
pub(crate) fn stages(asked: &Asked) {
    let mut rdb = Vec::new();
    shapes::Shape::Mixed.write(asked.shard_bytes as u64, &mut rdb).unwrap();
    let key = DataKey::random().unwrap();
    let sealer = |compression| {
        let header = Header::new(Cipher::Aes256Gcm, compression, "20261125T000000Z-00000000", 0, 1).unwrap();
        let key = header.object_key(Some(&key)).unwrap();
        Sealer::new(&header, &header.encode(&key), &key, 1)
    };
    let frames: Vec<&[u8]> = rdb.chunks(FRAME).collect();
    let seal = |sealer: &Sealer, frames: &[&[u8]]| -> Vec<Vec<u8>> {
        frames.iter().zip(0..).map(|(frame, number)| sealer.seal(number, Kind::Data, frame).unwrap()).collect()
    };
    let packed: Vec<Vec<u8>> = frames.iter().map(|frame| zstd::bulk::compress(frame, 1).unwrap()).collect();
    let packed: Vec<&[u8]> = packed.iter().map(Vec::as_slice).collect();
    let stored: u64 = packed.iter().map(|frame| frame.len() as u64).sum();
    println!("\nCPU by stage, {:.0} MB of RDB, {:.0} MB stored, {} runs", mb(rdb.len() as u64), mb(stored), asked.runs);
    println!("{:<44}{:>16}", "", "CPU s per GB");
    let row = |name: &str, work: &mut dyn FnMut()| {
        println!("{name:<44}{:>16.2}", median_s(asked.runs, work) * 1000.0 / mb(rdb.len() as u64));
    };
    row("scan: structure, CRC64, counts, slots", &mut || {
        let mut scanner = Scanner::new(ReportSink::new(true));
        assert!(rdb.chunks(FRAME / 2).all(|chunk| scanner.feed(chunk).is_ok()));
        assert!(scanner.finish().is_ok());
    });
    row("SHA-256 of the RDB", &mut || assert!(Sha256::digest(&rdb)[0] < u8::MAX || rdb[0] > 0));
    row("zstd level 1", &mut || {
        let sizes = frames.iter().map(|frame| zstd::bulk::compress(frame, 1).unwrap().len() as u64);
        assert_eq!(sizes.sum::<u64>(), stored);
    });
    let plain = sealer(Compression::None);
    row("AES-256-GCM of what is stored", &mut || assert_eq!(seal(&plain, &packed).len(), packed.len()));
    row("SHA-256 of what is stored", &mut || {
        let mut digest = Sha256::new();
        packed.iter().for_each(|frame| digest.update(frame));
        assert_eq!(digest.finalize().len(), 32);
    });
    let path = asked.dir.join("stored");
    row("write and sync of what is stored", &mut || {
        let mut file = std::fs::File::create(&path).unwrap();
        packed.iter().for_each(|frame| file.write_all(frame).unwrap());
        file.sync_data().unwrap();
    });
}

/// Peak memory of a capture of one shard at two sizes.
pub(crate) fn sizes(asked: &Asked) {
    println!("\npeak memory of `snapshot create`, one shard");
    for part in [4, 1] {
        let shard_bytes = asked.shard_bytes / part;
        let smaller = Asked { shard_bytes, runs: 1, dir: asked.dir.join(format!("size-{part}")) };
        std::fs::create_dir(&smaller.dir).unwrap();
        let source = Source::launch(&smaller, shapes::Shape::Mixed, 1);
        let mut peaks: Vec<f64> =
            (0..asked.runs).map(|run| snapshot(&smaller, &source, &format!("n{run}")).0.peak_mib).collect();
        peaks.sort_by(f64::total_cmp);
        let (median, most) = (peaks[peaks.len() / 2], peaks[peaks.len() - 1]);
        println!("{:>8.0} MB of RDB: median {median:.0} MiB, most {most:.0} MiB", mb(shard_bytes as u64));
    }
}

/// The latencies of a steady workload on the primary, without a capture and with captures of its replica all the time.
pub(crate) fn effect(asked: &Asked) {
    let source = Source::launch(asked, shapes::Shape::Mixed, 1);
    let primary = source.urls()[0].clone();
    let replica = Server::start(&Options::new());
    let port = source.restored["nodes"][0]["port"].to_string();
    replica.run(&["REPLICAOF", "127.0.0.1", &port]);
    process::wait_for("the replica", Duration::from_secs(300), || match replica.info("master_link_status") {
        Some(status) if status == "up" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    println!(
        "\na steady workload of {RATE} commands a second on the primary (SET and GET in turn), {} s each",
        WORKLOAD.as_secs()
    );
    println!("{:<28}{:>10}{:>10}{:>12}{:>10}{:>12}", "ms", "p50", "p99", "p99.9", "max", "captures");
    let row = |name: &str, mut latencies: Vec<f64>, captures: usize| {
        latencies.sort_by(f64::total_cmp);
        let at = |part: f64| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index of a list in memory")]
            let index = (latencies.len() as f64 * part) as usize;
            latencies[index.min(latencies.len() - 1)]
        };
        println!("{name:<28}{:>10.2}{:>10.2}{:>12.2}{:>10.2}{captures:>12}", at(0.5), at(0.99), at(0.999), at(1.0));
    };
    row("without", workload(&primary), 0);
    let stop = AtomicBool::new(false);
    let (mut captures, mut costs) = (0, Vec::<Cost>::new());
    let latencies = std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            let latencies = workload(&primary);
            stop.store(true, Ordering::Relaxed);
            latencies
        });
        while !stop.load(Ordering::Relaxed) {
            let _absent_is_fine = std::fs::remove_dir_all(asked.repository());
            let (place, name) = (asked.place(), format!("n{captures}"));
            let mut words = vec!["snapshot", "create", "--source", &primary, "--name", &name];
            words.extend(place.iter().map(String::as_str));
            costs.push(backupd(&words).0);
            captures += 1;
        }
        working.join().unwrap()
    });
    row("a replica is captured", latencies, captures);
    println!("{captures} captures of {:.1} s (median)", Cost::median(&costs, |cost| cost.wall_s));
}

/// The latency of every command, in ms, counted from when it should have been sent.
fn workload(url: &str) -> Vec<f64> {
    let mut link = nodes::connect(url);
    let (begun, every) = (Instant::now(), Duration::from_secs(1) / RATE);
    let mut latencies = Vec::new();
    for number in 0.. {
        let due = every * number;
        if due >= WORKLOAD {
            break;
        }
        if let Some(wait) = due.checked_sub(begun.elapsed()) {
            std::thread::sleep(wait);
        }
        let key = format!("steady:{}", number % 10_000);
        let words = if number % 2 == 0 { vec!["SET", &key, "a value of a few bytes"] } else { vec!["GET", &key] };
        nodes::command(&words).exec(&mut link).unwrap();
        latencies.push((begun.elapsed().saturating_sub(due)).as_secs_f64() * 1000.0);
    }
    latencies
}

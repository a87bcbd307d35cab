//! The shapes of RDBs that are measured, written without a server so that they are the same everywhere.

use std::io::{self, Write};

use rdbtools::RdbVersion;
use rdbtools::crc64::Crc64;
use rdbtools::write::{self, put_length, put_string};

/// A shape of keyspace.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// Strings of about 100 bytes under keys of about 20, one in ten with an expiry.
    Small,
    /// All kinds of values, many compressed.
    Mixed,
    /// Strings of 64 KiB that do not compress.
    Large,
    /// One string that takes it all.
    Giant,
}

/// The shapes of the table, in its order.
pub(crate) const ALL: [Shape; 3] = [Shape::Small, Shape::Mixed, Shape::Large];

/// How much is made before it is written.
const BUFFER_LEN: usize = 1 << 20;

impl Shape {
    /// Its name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Mixed => "mixed",
            Self::Large => "large",
            Self::Giant => "giant",
        }
    }

    /// Writes an RDB of about `size` bytes; it is never held as a whole.
    pub(crate) fn write(self, size: u64, to: &mut impl Write) -> io::Result<()> {
        let version = RdbVersion::redis(10);
        let mut out = version.header();
        write::put_aux(&mut out, b"redis-ver", b"7.0.15");
        write::put_select_db(&mut out, 0);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let texts = Texts {
            documents: (0..64).map(|_| lzf(&text(&mut random))).collect(),
            nodes: (0..64).map(|_| lzf(&listpack(text(&mut random).chunks(60)))).collect(),
        };
        if let Self::Giant = self {
            key(&mut out, 0, "giant");
            put_length(&mut out, size / 8 * 8);
        }
        let (mut crc, mut written, mut number) = (Crc64::new(), 0, 0);
        while written < size {
            while out.len() < BUFFER_LEN && written + (out.len() as u64) < size {
                match self {
                    Self::Small => small(&mut out, number, &mut random),
                    Self::Mixed => mixed(&mut out, number, &mut random, &texts),
                    Self::Large => large(&mut out, number, &mut random),
                    Self::Giant => break,
                }
                number += 1;
            }
            if let Self::Giant = self {
                let left = (size / 8 * 8).saturating_sub(number * BUFFER_LEN as u64);
                random.bytes(&mut out, left.min(BUFFER_LEN as u64));
                number += 1;
                if left <= BUFFER_LEN as u64 {
                    written = size;
                }
            }
            crc.update(&out);
            to.write_all(&out)?;
            written += out.len() as u64;
            out.clear();
        }
        write::put_end(&mut out);
        crc.update(&out);
        out.extend(crc.value().to_le_bytes());
        to.write_all(&out)
    }
}

/// A small generator of numbers that are the same every time (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn bytes(&mut self, out: &mut Vec<u8>, count: u64) {
        for _ in 0..count.div_ceil(8) {
            out.extend(self.next().to_le_bytes());
        }
        let surplus = usize::try_from(count.div_ceil(8) * 8 - count).unwrap_or(0);
        out.truncate(out.len() - surplus);
    }
}

fn key(out: &mut Vec<u8>, code: u8, name: &str) {
    out.push(code);
    put_string(out, name.as_bytes());
}

fn small(out: &mut Vec<u8>, number: u64, random: &mut Random) {
    if number.is_multiple_of(10) {
        out.push(252);
        out.extend((4_102_444_800_000 + number).to_le_bytes());
    }
    key(out, 0, &format!("user:{number:012}"));
    let length = 80 + random.below(40);
    put_length(out, length);
    random.bytes(out, length);
}

fn large(out: &mut Vec<u8>, number: u64, random: &mut Random) {
    key(out, 0, &format!("blob:{number:08}"));
    put_length(out, 64 << 10);
    random.bytes(out, 64 << 10);
}

/// Compressed strings, made once because making them takes longer than everything else.
struct Texts {
    documents: Vec<Vec<u8>>,
    nodes: Vec<Vec<u8>>,
}

fn any_of<'a>(texts: &'a [Vec<u8>], random: &mut Random) -> &'a [u8] {
    let index = usize::try_from(random.below(texts.len() as u64)).unwrap_or(0);
    texts.get(index).map_or(&[], Vec::as_slice)
}

fn mixed(out: &mut Vec<u8>, number: u64, random: &mut Random, texts: &Texts) {
    let members = 200 + random.below(400);
    match number % 16 {
        // a hash that fits a listpack is one string
        0..=7 => {
            key(out, 16, &format!("packed:{number}"));
            let names: Vec<String> = (0..3 + random.below(10)).map(|field| format!("field:{field:04}")).collect();
            let mut values = Vec::new();
            random.bytes(&mut values, names.len() as u64 * 24);
            let pairs = names.iter().zip(values.chunks(24));
            put_string(out, &listpack(pairs.flat_map(|(name, value)| [name.as_bytes(), value])));
        }
        8..=11 => {
            key(out, 0, &format!("document:{number}"));
            out.extend_from_slice(any_of(&texts.documents, random));
        }
        12 => {
            key(out, 4, &format!("hash:{number}"));
            put_length(out, members);
            for field in 0..members {
                put_string(out, format!("field:{field}").as_bytes());
                put_length(out, 20);
                random.bytes(out, 20);
            }
        }
        13 => {
            key(out, 2, &format!("set:{number}"));
            put_length(out, members);
            for member in 0..members {
                put_string(out, format!("member:{member:08}").as_bytes());
            }
        }
        14 => {
            key(out, 5, &format!("zset:{number}"));
            put_length(out, members);
            for member in 0..members {
                put_string(out, format!("player:{member:08}").as_bytes());
                out.extend(f64::from(u32::try_from(member).unwrap_or(0)).to_le_bytes());
            }
        }
        _ => {
            key(out, 18, &format!("list:{number}"));
            put_length(out, members / 20);
            for _ in 0..members / 20 {
                put_length(out, 2);
                out.extend_from_slice(any_of(&texts.nodes, random));
            }
        }
    }
}

/// A listpack of strings of up to 63 bytes.
fn listpack<'a>(entries: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut body, mut count) = (Vec::new(), 0u16);
    for entry in entries {
        let length = u8::try_from(entry.len()).unwrap_or(63).min(63);
        body.push(0x80 | length);
        body.extend(entry.iter().take(length.into()));
        body.push(length + 1);
        count += 1;
    }
    let total = u32::try_from(body.len() + 7).unwrap_or(0);
    [&total.to_le_bytes()[..], &count.to_le_bytes(), &body, &[0xff]].concat()
}

/// Some kilobytes of the kind of text that applications keep.
fn text(random: &mut Random) -> Vec<u8> {
    const WORDS: [&str; 12] = [
        "\"name\":\"",
        "\",\"email\":\"",
        "@example.org\",",
        "\"created\":17",
        "\"tags\":[\"red\",\"blue\"],",
        "\"id\":",
        "{\"items\":[",
        "}],",
        "\"price\":",
        "\"quantity\":1,",
        "\"comment\":\"thank you very much\",",
        "null,",
    ];
    let length = 2000 + usize::try_from(random.below(6000)).unwrap_or(0);
    let mut text = Vec::new();
    while text.len() < length {
        let word = WORDS.get(usize::try_from(random.below(12)).unwrap_or(0));
        text.extend(word.copied().unwrap_or_default().bytes());
        text.extend(random.below(100_000).to_string().bytes());
    }
    text
}

/// A string compressed as servers do: a table of the last place of each three bytes, greedy.
fn lzf(plain: &[u8]) -> Vec<u8> {
    let (mut packed, mut literals, mut at) = (Vec::new(), Vec::new(), 0);
    let mut places = std::collections::HashMap::new();
    let flush = |packed: &mut Vec<u8>, literals: &mut Vec<u8>| {
        for run in literals.chunks(32) {
            packed.extend(u8::try_from(run.len() - 1));
            packed.extend(run);
        }
        literals.clear();
    };
    while at < plain.len() {
        let window = plain.get(at..at + 3);
        let earlier = window.and_then(|window| places.insert(window, at)).filter(|place| at - place <= 8192);
        let same = earlier.map_or(0, |place| {
            let both = plain.iter().skip(at).zip(plain.iter().skip(place));
            both.take(264).take_while(|(a, b)| a == b).count()
        });
        if let Some(place) = earlier.filter(|_| same >= 3) {
            flush(&mut packed, &mut literals);
            let [high, low] = u16::try_from(at - place - 1).unwrap_or(0).to_be_bytes();
            match u8::try_from(same - 2) {
                Ok(length @ 0..=6) => packed.extend([length << 5 | high, low]),
                Ok(length) => packed.extend([7 << 5 | high, length - 7, low]),
                Err(_) => packed.extend([7 << 5 | high, 255, low]),
            }
            at += same;
        } else {
            literals.extend(plain.get(at));
            at += 1;
        }
    }
    flush(&mut packed, &mut literals);
    let mut out = vec![0xc3];
    put_length(&mut out, packed.len() as u64);
    put_length(&mut out, plain.len() as u64);
    out.extend(packed);
    out
}

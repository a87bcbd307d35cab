#!/usr/bin/python3
"""usage: read_snapshot.py SNAPSHOT_FOLDER (KEYRING | -) OUT

Turns a snapshot of a folder repository, <repository>/<cluster>/<snapshot-id>, into OUT/shard-<nnnn>.rdb; `-` when it is
not encrypted. Every digest, MAC and tag is checked: what does not fit ends it with exit code 1, before the file has its
name. Written from backupd/docs/format.md alone, to show that the document is enough. Needs Python 3.9 and the packages
`cryptography` and `zstandard` (Debian: python3-cryptography, python3-zstandard).
"""
import base64, functools, hashlib, hmac, json, os, pathlib, re, struct, sys, zstandard
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sealed import open_gcm, open_hpke

decoded = functools.partial(base64.b64decode, validate=True)

def need(condition, name, what):
    if not condition:
        raise ValueError(f"{name}: {what}")

def derive(key, salt, info, length):
    return HKDF(SHA256(), length, salt, info).derive(key)

def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

def document(path):
    """Section 2: the members of a JSON document, form and digest checked; its `mac` is left to the caller."""
    data = pathlib.Path(path).read_bytes()
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}")
    need(isinstance(value, dict) and canonical(value) == data, path, "not in canonical form")
    digest = value.pop("digest", None)
    need(digest == hashlib.sha256(canonical(value)).hexdigest(), path, "the digest does not fit")
    need(value.get("format") == 1, path, "not format 1")
    return value

def open_wrap(path, wrap, secret):
    """Section 3: the data key of a wrap, by the secret of the key that it is for."""
    associated = "\0".join(["backupd/1 wrap", wrap["snapshot_id"], wrap["key_id"]]).encode()
    sealed = decoded(wrap["ciphertext"])
    if wrap["algorithm"] == "hpke-x25519-sha256-aes-256-gcm":
        return open_hpke(path, secret, decoded(wrap["encapsulated"]), b"backupd/1 wrap", sealed, associated)
    need(wrap["algorithm"] == "aes-256-gcm", path, "an unknown algorithm")
    return open_gcm(path, secret, decoded(wrap["nonce"]), sealed, associated)

def find_data_key(folder, snapshot_id, keyring_path):
    """Section 3: opens every wrap whose key is in the keyring; they must hold the same data key."""
    keyring, found = json.loads(pathlib.Path(keyring_path).read_text()), set()
    need(keyring["format"] == 1, keyring_path, "not format 1")
    secrets = {key["id"]: decoded(key["secret"]) for key in keyring["keys"]}
    for pair in keyring.get("pairs", []):
        secrets["x-" + hashlib.sha256(decoded(pair["public"][7:])).hexdigest()[:16]] = decoded(pair["secret"])
    for file in filter(re.compile(r"wrap-.+\.json").fullmatch, os.listdir(folder)):
        path = os.path.join(folder, file)
        wrap = document(path)
        named = f"wrap-{re.sub('[:/]', '.', wrap['key_id'])}.json"
        need((wrap["snapshot_id"], named) == (snapshot_id, file), path, "the wrap of something else")
        if wrap["key_id"] in secrets:
            found.add(open_wrap(path, wrap, secrets[wrap["key_id"]]))
    need([len(key) for key in found] == [32], folder, f"{len(found)} data keys can be opened with {keyring_path}")
    return found.pop()

def read_header(path, header, manifest, shard, data_key):
    """Section 4: checks a shard's header. Returns its key (None: not encrypted) and the largest plain frame."""
    need(hashlib.sha256(header[:96]).digest() == header[96:], path, "the header's digest does not fit")
    fields = struct.unpack("<8sHBBI32sII16s16s8s", header[:96])
    magic, version, cipher, compression, frame_bytes, snapshot_id, index, attempt, salt, check, zero = fields
    need((magic, version, zero) == (b"BACKUPD\x01", 1, bytes(8)), path, "not version 1 of the format")
    need(compression in (0, 1) and 1 <= frame_bytes <= 16 << 20, path, "an impossible header")
    need(snapshot_id == manifest["snapshot_id"].encode().ljust(32, b"\0"), path, "a shard of another snapshot")
    need((index, attempt) == (shard["index"], shard["attempt"]), path, "another shard")
    need(cipher == (1 if data_key else 0), path, "the cipher is not that of the manifest")
    expected = derive(data_key, salt, b"backupd/1 check" + header[:72], 16) if data_key else bytes(16)
    need(hmac.compare_digest(expected, check), path, "the data key is not the one that sealed it")
    return data_key and derive(data_key, salt, b"backupd/1 object" + header[:72], 32), frame_bytes

def open_frame(name, number, key, header, head, body):
    """The plain bytes of a frame: its tag checked, its payload opened and decompressed."""
    plain_length, stored_length, _kind, compressed, zero = struct.unpack("<IIBBH", head)
    need(compressed in (0, 1) and zero == 0, name, "an impossible head")
    need(stored_length < plain_length if compressed else stored_length == plain_length, name, "impossible lengths")
    associated = header[96:128] + struct.pack(">Q", number) + head
    if key:
        payload = open_gcm(name, key, struct.pack(">IQ", 0, number), body, associated)
    else:
        payload = body[:-16]
        need(hashlib.sha256(associated + payload).digest()[:16] == body[-16:], name, "the tag does not fit")
    plain = zstandard.ZstdDecompressor().decompress(payload, max_output_size=plain_length) if compressed else payload
    need(len(plain) == plain_length, name, "another length than it says")
    return plain

def read_shard(path, manifest, shard, data_key, out):
    """Sections 4 and 5: writes the RDB of one shard to the open file `out`."""
    claimed, stored, rdb, frames, filters, kind = shard["object"], hashlib.sha256(), hashlib.sha256(), [], 1 << 63, 0
    with open(path, "rb") as file:
        def take(length):
            data = file.read(length)
            stored.update(data)
            return data if len(data) == length else need(False, path, "it is cut")
        need(os.fstat(file.fileno()).st_size == claimed["stored_bytes"], path, "the size is not that of the manifest")
        key, frame_bytes = read_header(path, header := take(128), manifest, shard, data_key)
        while kind != 1:
            offset, head, name = file.tell(), take(12), f"{path}: frame {len(frames)}"
            plain_length, stored_length, kind = struct.unpack("<IIB", head[:9])
            longest = {0: frame_bytes, 1: 64 << 20, 2: frame_bytes}.get(kind, 0)
            need(1 <= plain_length <= longest and 1 <= stored_length <= plain_length, name, "an impossible head")
            number, body = filters if kind == 2 else len(frames), take(stored_length + 16)
            data, filters = open_frame(name, number, key, header, head, body), filters + (kind == 2)
            if kind == 0:
                frames.append((plain_length, 12 + stored_length + 16))
                rdb.update(data)
                out.write(data)
        need(take(16) == struct.pack("<Q", offset) + b"BKDEND\x00\x01" and not file.read(1), path, "the footer is wrong")
    need(stored.hexdigest() == claimed["stored_sha256"], path, "the SHA-256 is not that of the manifest")
    version, digest, count = struct.unpack_from("<I32sQ", data)
    need(version in (1, 2) and digest == rdb.digest() == bytes.fromhex(claimed["plain_sha256"]), path, "another RDB")
    need(count == claimed["frames"] and frames == list(struct.iter_unpack("<II4x", data[44:44 + 12 * count])), path, "other frames")
    end = 52 + 12 * count + 18 * struct.unpack_from("<Q", data, 44 + 12 * count)[0]
    more = 16 + 12 * count + 16 * struct.unpack_from("<Q", data, end + 8 + 12 * count)[0] if version == 2 else 0
    need(len(data) == end + more, path, "the index's length")
    need(sum(length for length, _ in frames) == claimed["plain_bytes"], path, "the size of the RDB is wrong")

def read_snapshot(folder, keyring, out):
    document(os.path.join(folder, "..", "..", "backupd-repository.json"))
    path = os.path.join(folder, "manifest.json")
    manifest, (cluster, snapshot_id) = document(path), os.path.abspath(folder).split(os.sep)[-2:]
    need((manifest["cluster"], manifest["snapshot_id"]) == (cluster, snapshot_id), path, "the manifest of another snapshot")
    need((manifest["encryption"]["cipher"] == "none") == (keyring == "-"), path, "encrypted or not, against what was said")
    data_key, mac = None, manifest.pop("mac", None)
    if keyring != "-":
        data_key = find_data_key(folder, snapshot_id, keyring)
        expected = hmac.new(derive(data_key, b"", b"backupd/1 manifest", 32), canonical(manifest), "sha256").hexdigest()
        need(hmac.compare_digest(expected, str(mac)), path, "the MAC does not fit")
    os.makedirs(out)
    for index, shard in enumerate(manifest["shards"]):
        need(shard["index"] == index and re.fullmatch(r"[A-Za-z0-9._-]+", shard["object"]["file"]), path, "a shard is wrong")
        target = os.path.join(out, f"shard-{index:04}.rdb")
        with open(target + ".part", "xb") as file:
            read_shard(os.path.join(folder, shard["object"]["file"]), manifest, shard, data_key, file)
        os.rename(target + ".part", target)
        print(target)

if __name__ == "__main__":
    try:
        read_snapshot(*sys.argv[1:]) if len(sys.argv) == 4 else sys.exit(__doc__)
    except (KeyError, TypeError, ValueError, struct.error, OSError, zstandard.ZstdError) as error:
        sys.exit(f"{type(error).__name__}: {error}")

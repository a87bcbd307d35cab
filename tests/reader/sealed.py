"""What the reader opens: AES-256-GCM, and HPKE (RFC 9180) for one message in base mode with DHKEM(X25519, HKDF-SHA256),
HKDF-SHA256 and AES-256-GCM. HPKE is written from the RFC, with its names, since `cryptography` has none before version 47.
"""
import hmac
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

KEM = b"KEM" + bytes.fromhex("0020")
SUITE = b"HPKE" + bytes.fromhex("0020" "0001" "0002")

def open_gcm(name, key, nonce, sealed, associated):
    """The plain bytes; `ValueError`, with `name`, when the tag does not fit."""
    try:
        return AESGCM(key).decrypt(nonce, sealed, associated)
    except InvalidTag:
        raise ValueError(f"{name}: the tag does not fit")

def labeled_extract(suite, salt, label, key):
    return hmac.digest(salt, b"HPKE-v1" + suite + label + key, "sha256")

def labeled_expand(suite, key, label, info, length):
    """At most 32 bytes, which is one block of HKDF-Expand."""
    labeled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(key, labeled + b"\x01", "sha256")[:length]

def open_hpke(name, secret, enc, info, sealed, aad):
    """The plain bytes of what was sealed for the public key of `secret`; `ValueError` when it was not."""
    private = X25519PrivateKey.from_private_bytes(secret)
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    agreed = labeled_extract(KEM, b"", b"eae_prk", private.exchange(X25519PublicKey.from_public_bytes(enc)))
    shared_secret = labeled_expand(KEM, agreed, b"shared_secret", enc + public, 32)
    hashes = [labeled_extract(SUITE, b"", b"psk_id_hash", b""), labeled_extract(SUITE, b"", b"info_hash", info)]
    context, secret = b"\0" + b"".join(hashes), labeled_extract(SUITE, shared_secret, b"secret", b"")
    key, nonce = (labeled_expand(SUITE, secret, *of) for of in ((b"key", context, 32), (b"base_nonce", context, 12)))
    return open_gcm(name, key, nonce, sealed, aad)

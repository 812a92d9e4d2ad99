"""Makes ``sealing.json``: test vectors of protocol.md section 11, step by step, from nothing but fixed inputs.

    python tests/vectors/make_vectors.py > tests/vectors/sealing.json

Written from the specification, not from the server: it needs Python and the ``cryptography`` package, imports nothing
of this project, and has no clever parts. Bytes are hexadecimal in the output unless a name says otherwise.
"""

# ruff: noqa: T201  # it prints the vectors
# mypy: ignore-errors

import base64
import hashlib
import json

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def to_json(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def to_msgpack(value):
    """MessagePack, as much of it as these messages need, each value in its shortest form."""
    if value is None:
        return b"\xc0"
    if isinstance(value, int):
        return bytes([value]) if value < 128 else b"\xcc" + bytes([value])
    if isinstance(value, bytes):
        head = b"\xc4" + bytes([len(value)]) if len(value) < 256 else b"\xc5" + len(value).to_bytes(2, "big")
        return head + value
    if isinstance(value, str):
        data = value.encode()
        return (bytes([0xA0 | len(data)]) if len(data) < 32 else b"\xd9" + bytes([len(data)])) + data
    if isinstance(value, list):
        return bytes([0x90 | len(value)]) + b"".join(to_msgpack(item) for item in value)
    return bytes([0x80 | len(value)]) + b"".join(to_msgpack(key) + to_msgpack(item) for key, item in value.items())


def hkdf(secret, salt, info, length):
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info.encode()).derive(secret)


def thumbprint(public_key):
    """RFC 7638: the id of an account's key."""
    jwk = '{"crv":"Ed25519","kty":"OKP","x":"' + base64url(public_key) + '"}'
    return base64url(hashlib.sha256(jwk.encode()).digest())


def agree(client_private, server_private, client_frame, key_id, previous_hash):
    """A key agreement from its fixed inputs: transcript, identity's signature, keys."""
    client_public = client_private.public_key().public_bytes_raw()
    server_public = server_private.public_key().public_bytes_raw()
    lines = "mcp1.1-handshake\n"
    lines += hashlib.sha256(client_frame).hexdigest() + "\n"
    lines += base64url(server_public) + "\n"
    lines += CONNECTION_ID + "\n"
    lines += "1.1\n"
    lines += LEVEL + "\n"
    lines += key_id + "\n"
    if previous_hash is not None:
        lines += previous_hash.hex() + "\n"
    transcript_hash = hashlib.sha256(lines.encode()).digest()
    secret = client_private.exchange(X25519PublicKey.from_public_bytes(server_public))
    keys = {
        "c2s_key": hkdf(secret, transcript_hash, "mcp1.1 c2s key", 32),
        "c2s_iv": hkdf(secret, transcript_hash, "mcp1.1 c2s iv", 12),
        "s2c_key": hkdf(secret, transcript_hash, "mcp1.1 s2c key", 32),
        "s2c_iv": hkdf(secret, transcript_hash, "mcp1.1 s2c iv", 12),
    }
    vector = {
        "client_private_key": client_private.private_bytes_raw().hex(),
        "client_public_key": base64url(client_public),
        "server_private_key": server_private.private_bytes_raw().hex(),
        "server_public_key": base64url(server_public),
        "client_frame": client_frame.hex(),
        "connection_id": CONNECTION_ID,
        "protocol_version": "1.1",
        "security_level": LEVEL,
        "key_id": key_id,
        "previous_hash": None if previous_hash is None else previous_hash.hex(),
        "transcript": lines,
        "transcript_hash": transcript_hash.hex(),
        "signature": "ed25519:" + IDENTITY_KEY_ID + ":" + base64url(IDENTITY.sign(transcript_hash)),
        "shared_secret": secret.hex(),
        **{name: value.hex() for name, value in keys.items()},
    }
    return vector, transcript_hash, keys


def seal(encoding, direction, sequence, message_id, message_type, payload, metadata, keys, key_id, signature=None):
    """A sealed message from its parts."""
    encode = to_json if encoding == "mcp.v1.json" else to_msgpack
    key, iv = (
        (keys["c2s_key"], keys["c2s_iv"]) if direction == "client to server" else (keys["s2c_key"], keys["s2c_iv"])
    )
    timestamp = "2026-11-20T16:31:00.123Z"
    plaintext = encode({"payload": payload, "metadata": metadata})
    nonce = (int.from_bytes(iv, "big") ^ sequence).to_bytes(12, "big")
    aad = "mcp1.1\n" + message_id + "\n" + message_type + "\n" + timestamp + "\n" + LEVEL + "\n" + key_id + "\n"
    aad += str(sequence) + "\n"
    ciphertext = AESGCM(key).encrypt(nonce, plaintext, aad.encode())
    security = {
        "security_level": LEVEL,
        "encryption_info": {"algorithm": "AES-256-GCM", "key_id": key_id, "sequence": sequence},
    }
    if signature is not None:
        security["signature"] = signature
    envelope = {
        "id": message_id,
        "type": message_type,
        "payload": base64url(ciphertext) if encoding == "mcp.v1.json" else ciphertext,
        "timestamp": timestamp,
        "security": security,
        "metadata": None,
    }
    return {
        "encoding": encoding,
        "direction": direction,
        "sequence": sequence,
        "key_id": key_id,
        "id": message_id,
        "type": message_type,
        "timestamp": timestamp,
        "security_level": LEVEL,
        "plaintext": plaintext.hex(),
        "nonce": nonce.hex(),
        "aad": aad,
        "ciphertext": ciphertext.hex(),
        "frame": encode(envelope).hex(),
    }


def sign(encoding, message_id, payload, metadata):
    """A command's signature from its parts."""
    encode = to_json if encoding == "mcp.v1.json" else to_msgpack
    payload_bytes = encode(payload)
    metadata_bytes = b"" if metadata is None else encode(metadata)
    lines = (
        "mcp1.1-signature\n" + SESSION_ID + "\n" + message_id + "\ncommand\n2026-11-20T16:31:00.123Z\n" + LEVEL + "\n"
    )
    lines += hashlib.sha256(payload_bytes).hexdigest() + "\n"
    lines += hashlib.sha256(metadata_bytes).hexdigest() + "\n"
    return {
        "encoding": encoding,
        "session_id": SESSION_ID,
        "id": message_id,
        "type": "command",
        "timestamp": "2026-11-20T16:31:00.123Z",
        "security_level": LEVEL,
        "payload": payload_bytes.hex(),
        "metadata": metadata_bytes.hex(),
        "lines": lines,
        "private_key": ACCOUNT_KEY.private_bytes_raw().hex(),
        "public_key": base64url(ACCOUNT_KEY.public_key().public_bytes_raw()),
        "key_id": ACCOUNT_KEY_ID,
        "signature": "ed25519:" + ACCOUNT_KEY_ID + ":" + base64url(ACCOUNT_KEY.sign(lines.encode())),
    }


CONNECTION_ID = "0198c5a1-7f3e-7c44-9d55-3f2f6a1c8e10"
SESSION_ID = "0198c5a1-8000-7c44-9d55-3f2f6a1c8e11"
LEVEL = "critical"
IDENTITY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
IDENTITY_KEY_ID = "identity-1"
ACCOUNT_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64)))
ACCOUNT_KEY_ID = thumbprint(ACCOUNT_KEY.public_key().public_bytes_raw())

client_private = X25519PrivateKey.from_private_bytes(bytes(range(64, 96)))
server_private = X25519PrivateKey.from_private_bytes(bytes(range(96, 128)))
client_frame = to_json(
    {
        "id": "m-1",
        "type": "handshake",
        "payload": {
            "protocol_versions": ["1.1"],
            "client": {"name": "vectors"},
            "security_level": LEVEL,
            "key_agreement": {
                "algorithm": "X25519",
                "public_key": base64url(client_private.public_key().public_bytes_raw()),
            },
        },
        "timestamp": "2026-11-20T16:31:00.000Z",
    }
)
handshake, first_hash, first_keys = agree(client_private, server_private, client_frame, "key-1", None)

ping = {"command": "session.ping", "arguments": {}}
greeting = {"command": "tools.execute", "arguments": {"tool": "text.count_words", "input": {"text": "Grüße, 世界"}}}
signatures = [
    sign("mcp.v1.json", "m-3", ping, None),
    sign("mcp.v1.json", "m-4", greeting, {"timeout_ms": 100}),
    sign("mcp.v1.msgpack", "m-4", greeting, {"timeout_ms": 100}),
]

messages = []
for encoding in ("mcp.v1.json", "mcp.v1.msgpack"):
    credentials = {"method": "api_key", "key": "mcp_example"}
    messages.append(
        seal(encoding, "client to server", 0, "m-2", "authentication", credentials, None, first_keys, "key-1")
    )
    signature = sign(encoding, "m-4", greeting, {"timeout_ms": 100})["signature"]
    messages.append(
        seal(
            encoding,
            "client to server",
            1,
            "m-4",
            "command",
            greeting,
            {"timeout_ms": 100},
            first_keys,
            "key-1",
            signature,
        )
    )
    answer = {"command": "session.ping", "result": {"server_time": "2026-11-20T16:31:00.120Z"}}
    messages.append(
        seal(encoding, "server to client", 0, "s-1", "response", answer, {"correlation_id": "m-3"}, first_keys, "key-1")
    )
    event = {"event": "session.rekey_due", "data": {"key_id": "key-1"}}
    messages.append(seal(encoding, "server to client", 1, "s-2", "event", event, None, first_keys, "key-1"))

# A re-key: its handshake is sealed under the old keys, and the frame is hashed as it went over the wire.
new_client_private = X25519PrivateKey.from_private_bytes(bytes(range(128, 160)))
new_server_private = X25519PrivateKey.from_private_bytes(bytes(range(160, 192)))
offer = {
    "key_agreement": {
        "algorithm": "X25519",
        "public_key": base64url(new_client_private.public_key().public_bytes_raw()),
    }
}
request = seal("mcp.v1.json", "client to server", 2, "m-5", "handshake", offer, None, first_keys, "key-1")
rekey, second_hash, second_keys = agree(
    new_client_private, new_server_private, bytes.fromhex(request["frame"]), "key-2", first_hash
)
rekey["request"] = request
rekey["first_message_after"] = seal(
    "mcp.v1.json", "client to server", 0, "m-6", "heartbeat", {"ack": 0}, None, second_keys, "key-2"
)

vectors = {
    "identity": {
        "private_key": IDENTITY.private_bytes_raw().hex(),
        "public_key": base64url(IDENTITY.public_key().public_bytes_raw()),
        "key_id": IDENTITY_KEY_ID,
        "fingerprint": "SHA256:"
        + base64.b64encode(hashlib.sha256(IDENTITY.public_key().public_bytes_raw()).digest()).rstrip(b"=").decode(),
    },
    "handshake": handshake,
    "messages": messages,
    "signatures": signatures,
    "rekey": rekey,
}
print(json.dumps(vectors, indent=2, ensure_ascii=False))

"""An agent at level high or critical: its messages are sealed end to end, and at critical its commands are signed.

    python examples/sealed_agent.py [TEXT]

It has the server count the words of TEXT. MCP_URL says where the server is and MCP_API_KEY is the agent's key, as for
agent.py. MCP_FINGERPRINT is the server's identity as its start prints it (SHA256:…): without it the agent only says
what it found. MCP_SIGNING_KEY is the PEM file of an Ed25519 private key whose public half is registered for the
account: with it the agent goes to level critical. It needs the libraries `websockets` and `cryptography`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import urllib.request
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

URL = os.environ.get("MCP_URL", "ws://127.0.0.1:9000/ws/")
KEY_FILE = Path(__file__).resolve().parent.parent / "var/first-run/agent-api-key"


class Refused(Exception):
    """The server answered with an error, or is not who it says that it is."""


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def join(*lines: Any) -> bytes:
    """Lines as they are hashed, authenticated and signed: each ended by a newline."""
    return "".join(f"{line}\n" for line in lines).encode()


def to_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def hash_part(value: Any) -> str:
    return hashlib.sha256(b"" if value is None else to_json(value)).hexdigest()


class Direction:
    """One direction's key, and the sequence of its next message."""

    def __init__(self, secret: bytes, transcript_hash: bytes, name: str) -> None:
        def derive(part: str, length: int) -> bytes:
            info = f"mcp1.1 {name} {part}".encode()
            return HKDF(algorithm=SHA256(), length=length, salt=transcript_hash, info=info).derive(secret)

        self.cipher = AESGCM(derive("key", 32))
        self.iv = int.from_bytes(derive("iv", 12), "big")
        self.sequence = 0

    def take(self) -> tuple[int, bytes]:
        """The next message's sequence and nonce."""
        sequence, self.sequence = self.sequence, self.sequence + 1
        return sequence, (self.iv ^ sequence).to_bytes(12, "big")


class SealedConnection:
    """One connection: protocol.md, section Security levels."""

    def __init__(self, socket: ClientConnection, *, level: str, signing_key: Ed25519PrivateKey | None = None) -> None:
        self.socket, self.level, self.signing_key = socket, level, signing_key
        self.session_id = ""
        self.digest = hashlib.sha256()
        self.shake_hands()

    def shake_hands(self) -> None:
        own = X25519PrivateKey.generate()
        offer = {"algorithm": "X25519", "public_key": encode(own.public_key().public_bytes_raw())}
        handshake = {
            "protocol_versions": ["1.1"],
            "client": {"name": "sealed-example"},
            "security_level": self.level,
            "features": ["progress"],
            "key_agreement": offer,
        }
        request = to_json(make_message("handshake", handshake))
        self.socket.send(request.decode())
        frame = self.socket.recv(timeout=60, decode=False)
        answer = json.loads(frame)["payload"]
        if "code" in answer:
            raise Refused(f"{answer['code']}: {answer['message']}")
        self.digest.update(request + frame)
        self.level = answer["security_level"]
        agreed = answer["key_agreement"]
        self.key_id = agreed["key_id"]
        self.transcript_hash = hashlib.sha256(
            join(
                "mcp1.1-handshake",
                hashlib.sha256(request).hexdigest(),
                agreed["public_key"],
                answer["connection_id"],
                answer["protocol_version"],
                self.level,
                self.key_id,
            )
        ).digest()
        self.identity_signature = agreed["signature"]
        secret = own.exchange(X25519PublicKey.from_public_bytes(decode(agreed["public_key"])))
        self.outgoing = Direction(secret, self.transcript_hash, "c2s")
        self.incoming = Direction(secret, self.transcript_hash, "s2c")

    def check_identity(self, keys: dict[str, Any], *, fingerprint: str | None) -> str:
        """The fingerprint of who signed the handshake, by the published keys; it must be the pinned one."""
        _, key_id, signature = self.identity_signature.split(":")
        jwk = next((jwk for jwk in keys["keys"] if jwk["kid"] == key_id), None)
        if jwk is None:
            raise Refused("the key that signed the handshake is not published")
        public_key = decode(jwk["x"])
        Ed25519PublicKey.from_public_bytes(public_key).verify(decode(signature), self.transcript_hash)
        found = "SHA256:" + base64.b64encode(hashlib.sha256(public_key).digest()).rstrip(b"=").decode()
        if fingerprint is not None and found != fingerprint:
            raise Refused(f"the server is {found}, not {fingerprint}")
        return found

    def send(self, message: dict[str, Any]) -> None:
        security: dict[str, Any] = {"security_level": self.level}
        if self.level == "critical" and message["type"] == "command":
            security["signature"] = self.sign(message)
        sequence, nonce = self.outgoing.take()
        aad = join("mcp1.1", message["id"], message["type"], message["timestamp"], self.level, self.key_id, sequence)
        plaintext = to_json({"payload": message["payload"], "metadata": message["metadata"]})
        security["encryption_info"] = {"algorithm": "AES-256-GCM", "key_id": self.key_id, "sequence": sequence}
        sealed = encode(self.outgoing.cipher.encrypt(nonce, plaintext, aad))
        self.socket.send(to_json({**message, "payload": sealed, "metadata": None, "security": security}).decode())

    def sign(self, message: dict[str, Any]) -> str:
        if self.signing_key is None:
            raise Refused("this server takes signed commands only: set MCP_SIGNING_KEY")
        public_key = encode(self.signing_key.public_key().public_bytes_raw())
        key_id = encode(hashlib.sha256(f'{{"crv":"Ed25519","kty":"OKP","x":"{public_key}"}}'.encode()).digest())
        lines = join(
            "mcp1.1-signature",
            self.session_id,
            message["id"],
            message["type"],
            message["timestamp"],
            self.level,
            hash_part(message["payload"]),
            hash_part(message["metadata"]),
        )
        return f"ed25519:{key_id}:{encode(self.signing_key.sign(lines))}"

    def receive(self) -> dict[str, Any]:
        envelope: dict[str, Any] = json.loads(self.socket.recv(timeout=60))
        security = envelope["security"]
        sequence, nonce = self.incoming.take()
        named = (envelope["id"], envelope["type"], envelope["timestamp"], security["security_level"])
        # A message of another sequence or key does not open with these.
        aad = join("mcp1.1", *named, self.key_id, sequence)
        return {**envelope, **json.loads(self.incoming.cipher.decrypt(nonce, decode(envelope["payload"]), aad))}

    def call(self, message_type: str, payload: dict[str, Any]) -> Any:
        """Send one message and wait for its answer's payload."""
        message = make_message(message_type, payload)
        self.send(message)
        while True:
            answer = self.receive()
            if (answer["metadata"] or {}).get("correlation_id") != message["id"] or answer["type"] == "event":
                continue
            if answer["type"] == "error":
                raise Refused(f"{answer['payload']['code']}: {answer['payload']['message']}")
            return answer["payload"]

    def authenticate(self, key: str) -> None:
        answer = self.call("authentication", {"method": "api_key", "key": key})
        if answer["handshake_sha256"] != self.digest.hexdigest():
            raise Refused("the handshake that the server saw is not the one that was sent")
        self.session_id = answer["session_id"]


def make_message(message_type: str, payload: dict[str, Any]) -> dict[str, Any]:
    timestamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    message = {"id": str(uuid.uuid4()), "type": message_type, "payload": payload, "metadata": None}
    return {**message, "timestamp": timestamp}


def fetch_keys() -> dict[str, Any]:
    """The server's published keys."""
    address = URL.replace("ws", "http", 1).partition("/ws")[0] + "/.well-known/mcp-keys.json"
    with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310  # the user's own address
        keys: dict[str, Any] = json.load(answer)
    return keys


def load_signing_key() -> Ed25519PrivateKey | None:
    path = os.environ.get("MCP_SIGNING_KEY")
    if not path:
        return None
    key = load_pem_private_key(Path(path).read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise Refused(f"{path} is no Ed25519 key")
    return key


def main() -> None:
    text = " ".join(sys.argv[1:]) or "sealed from end to end"
    key = os.environ.get("MCP_API_KEY") or KEY_FILE.read_text().strip()
    try:
        signing_key = load_signing_key()
        level = "high" if signing_key is None else "critical"
        with connect(URL, subprotocols=[Subprotocol("mcp.v1.json")]) as socket:
            connection = SealedConnection(socket, level=level, signing_key=signing_key)
            fingerprint = connection.check_identity(fetch_keys(), fingerprint=os.environ.get("MCP_FINGERPRINT"))
            connection.authenticate(key)
            arguments = {"tool": "text.count_words", "input": {"text": text}}
            answer = connection.call("command", {"command": "tools.execute", "arguments": arguments})
    except Refused as error:
        sys.exit(f"error: {error}")
    print(f"level {connection.level}, server {fingerprint}")
    print(json.dumps(answer["result"]["output"]))


if __name__ == "__main__":
    main()

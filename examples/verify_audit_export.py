"""Verify an export of the audit record without the server: Python 3.11 and `cryptography` are all it takes.

    python verify_audit_export.py audit.jsonl mcp-keys.json

The second file is the server's published key set, `/.well-known/mcp-keys.json`; take it from the server once, over TLS,
and keep it. Exit code 0: the export is what was sealed and signed; 1: it is not, and what is printed; 2: it cannot be
read. This file shares no code with the server on purpose.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ORIGIN = "0" * 64


def decode(text: str) -> bytes:
    """Base64url without padding, and nothing else."""
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(data).decode().rstrip("=") != text:
        raise ValueError("not base64url")
    return data


def load_keys(path: str) -> dict[str, Ed25519PublicKey]:
    """The Ed25519 keys of a JWK set (RFC 8037), by their ids."""
    with open(path, encoding="utf-8") as file:  # noqa: PTH123  # as plain as can be
        found = json.load(file)["keys"]
    return {
        key["kid"]: Ed25519PublicKey.from_public_bytes(decode(key["x"]))
        for key in found
        if key.get("kty") == "OKP" and key.get("crv") == "Ed25519" and key.get("use", "sig") == "sig"
    }


def compute_hash(previous: str, position: int, event: dict[str, str | None]) -> str:
    """SHA-256 over the lines of a seal; the event in its RFC 8785 form (all its values are texts or null)."""
    canonical = json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(f"mcp1.1-audit-seal\n{previous}\n{position}\n{canonical}\n".encode()).hexdigest()


def check_head(head: dict[str, Any], keys: dict[str, Ed25519PublicKey]) -> str | None:
    """What is wrong with a head's signature."""
    names = ("number", "position", "hash", "signed_at", "key_id")
    statement = "mcp1.1-audit-head\n" + "".join(f"{head[name]}\n" for name in names)
    key = keys.get(head["key_id"])
    if key is None:
        return f"unknown_key: head {head['number']} is signed by {head['key_id']}, which is not in the key set"
    try:
        key.verify(decode(head["signature"]), statement.encode())
    except (InvalidSignature, ValueError):
        return f"bad_signature: head {head['number']}, at position {head['position']}"
    return None


class Chain:
    """Where the chain stands, line by line."""

    def __init__(self, header: dict[str, Any]) -> None:
        self.position: int = header["from"] - 1
        self.hash: str = header["previous"]
        self.number: int = header["first_head"] - 1

    def check_seal(self, line: dict[str, Any]) -> Iterator[str]:
        """What is wrong with the next seal, or with its event."""
        position, event = line["position"], line["event"]
        if position != self.position + 1:
            yield f"missing_seal: position {position} comes after position {self.position}"
        elif line["previous"] != self.hash:
            yield f"broken_link: position {position} does not follow the one before it"
        if event is None:
            yield f"missing_event: of position {position}"
        elif compute_hash(line["previous"], position, event) != line["hash"]:
            yield f"changed: event {event.get('id')} at position {position}, or its seal"
        self.position, self.hash = position, line["hash"]

    def check_head(self, head: dict[str, Any]) -> Iterator[str]:
        """What is wrong with the next head, but for its signature."""
        number, position = head["number"], head["position"]
        if number != self.number + 1:
            yield f"missing_head: head {number} comes after head {self.number}"
        if position != self.position:
            yield f"head_mismatch: head {number} states position {position}, and stands at {self.position}"
        elif head["hash"] != self.hash:
            yield f"head_mismatch: head {number} states another hash than position {position} has"
        self.number = number


def verify(lines: Iterator[dict[str, Any]], keys: dict[str, Ed25519PublicKey]) -> Iterator[str]:
    """Everything that is wrong with an export, one text each."""
    header = next(lines)
    if header.get("type") != "mcp1.1-audit-export":
        raise ValueError("the first line is no header of an export")
    if header["from"] == 1 and header["previous"] != ORIGIN:
        yield "broken_link: the chain does not begin at its origin"
    chain, line = Chain(header), header
    for line in lines:
        if "head" in line:
            wrong = check_head(line["head"], keys)
            if wrong is not None:
                yield wrong
            yield from chain.check_head(line["head"])
        else:
            yield from chain.check_seal(line)
    if "head" not in line:
        yield "truncated: the last line is no signed head"
    if (chain.position, chain.number) != (header["to"], header["last_head"]):
        yield f"truncated: it does not end at position {header['to']} and head {header['last_head']}, as it says"


def main(arguments: list[str]) -> int:
    """The exit code."""
    if len(arguments) != 2:
        print(__doc__)
        return 2
    export, key_set = arguments
    wrong = number = 0

    def read(file: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        nonlocal number
        for number, line in enumerate(file, start=1):  # noqa: B007  # which one is told below
            yield json.loads(line)

    try:
        keys = load_keys(key_set)
        with open(export, "rb") as file:  # noqa: PTH123  # as above
            for text in verify(read(file), keys):
                wrong += 1
                print(f"line {number}: {text}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        print(f"line {number}: cannot be read: {type(error).__name__}: {error}")
        return 1 if wrong else 2
    print("The export is not what was signed." if wrong else "The export is what was sealed and signed.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

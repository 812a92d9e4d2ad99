"""The audit chain: what is hashed, what is signed, and how a chain is checked, position by position.

Pure: rows and keys come in, hashes, signatures and findings come out. Who appends is ``services.sealing``'s, who reads
the stored chain ``services.verification``'s. The published form of all this is ``docs/reference/audit-export.md``.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

ORIGIN: Final = "0" * 64
"""What the first seal follows."""
EVENT_FIELDS: Final = (
    "id",
    "at",
    "actor_id",
    "actor_name",
    "credential_id",
    "action",
    "resource_kind",
    "resource_name",
    "outcome",
    "trace_id",
    "data_json",
)
"""An event's columns, all of which its hash covers."""

FindKey = Callable[[str], Ed25519PublicKey | None]
"""The public audit key of an id; ``None``: there is none."""


class Seal(Struct, frozen=True, kw_only=True):
    """An event's place in the chain."""

    position: int
    """1, 2, 3 …"""
    event_id: str
    previous: str
    """The hash at the position before; ``ORIGIN`` at the first."""
    hash: str


class Head(Struct, frozen=True, kw_only=True):
    """A signed statement: so far the chain had come at that time."""

    number: int
    """1, 2, 3 … of the heads."""
    position: int
    hash: str
    signed_at: str
    """RFC 3339, UTC."""
    key_id: str
    signature: str = ""
    """Base64url without padding."""


class FindingKind(enum.StrEnum):
    """What can be wrong with a chain."""

    CHANGED = "changed"
    """The event, or its seal, is not what was sealed."""
    MISSING_EVENT = "missing_event"
    """The seal is there, its event is not."""
    MISSING_SEAL = "missing_seal"
    """A position is passed over."""
    BROKEN_LINK = "broken_link"
    """The seal does not follow the one before it: something was inserted, taken out or reordered."""
    INSERTED = "inserted"
    """A seal or a head comes again, or beyond where the sealer has come."""
    UNSEALED = "unsealed"
    """An event has no seal, longer than sealing takes."""
    BAD_SIGNATURE = "bad_signature"
    """A head's signature is not one of its key over what it says."""
    UNKNOWN_KEY = "unknown_key"
    """A head is signed by a key that is not the server's."""
    HEAD_MISMATCH = "head_mismatch"
    """A signed head has another hash than the chain has at its position: the chain was written anew."""
    MISSING_HEAD = "missing_head"
    """A signed head is gone."""
    TRUNCATED = "truncated"
    """The chain ends before where it had come."""


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that is wrong, and where."""

    kind: FindingKind
    position: int | None
    """In the chain; ``None`` for an event that has no seal."""
    subject: str
    """What it is about: an event's id, or a head's number."""
    text: str
    """For people."""


def format_time(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds, as events and heads have it."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def describe_event(values: Mapping[str, Any]) -> dict[str, str | None]:
    """An event's columns as texts, by name: the form that is hashed and exported."""
    at: datetime = values["at"]
    described: dict[str, str | None] = {
        name: None if values[name] is None else str(values[name]) for name in EVENT_FIELDS
    }
    described["at"] = format_time(at)
    return described


def encode_event(event: Mapping[str, str | None]) -> bytes:
    """The canonical form (RFC 8785) of a described event.

    An object of texts and nulls with ASCII names has its canonical form from any encoder that sorts and escapes no more
    than it must; a property test holds this one to ``rfc8785``, which takes forty times as long.
    """
    return msgspec.json.encode(event, order="deterministic")


def compute_hash(*, previous: str, position: int, event: Mapping[str, str | None]) -> str:
    """The hash of a seal, in hexadecimal: SHA-256 over these lines."""
    return hashlib.sha256(
        b"mcp1.1-audit-seal\n%b\n%d\n%b\n" % (previous.encode(), position, encode_event(event))
    ).hexdigest()


def make_statement(head: Head) -> bytes:
    """What a head's signature is over; the signature itself is no part of it."""
    lines = ("mcp1.1-audit-head", head.number, head.position, head.hash, head.signed_at, head.key_id)
    return "".join(f"{line}\n" for line in lines).encode()


def sign_head(head: Head, *, private_key: Ed25519PrivateKey) -> Head:
    """The head with its signature by the key that it names."""
    signature = private_key.sign(make_statement(head))
    return msgspec.structs.replace(head, signature=base64.urlsafe_b64encode(signature).decode().rstrip("="))


def is_signature_valid(head: Head, *, public_key: Ed25519PublicKey) -> bool:
    """Whether the head's signature is the key's, over what the head says."""
    try:
        signature = base64.b64decode(head.signature + "=" * (-len(head.signature) % 4), altchars=b"-_", validate=True)
        public_key.verify(signature, make_statement(head))
    except (binascii.Error, ValueError, InvalidSignature):
        return False
    # The one way to write it: other texts that decode to the same bytes were put there by somebody else.
    return base64.urlsafe_b64encode(signature).decode().rstrip("=") == head.signature


class ChainChecker:
    """Checks a chain that is fed to it in the order of positions: each seal with its event, each head after its seal.

    Keeps the last seal and head only, whatever the chain's length.
    """

    def __init__(self, *, first: int, previous: str, first_head: int | None, find_key: FindKey) -> None:
        """``previous`` is the hash before position ``first``; ``first_head`` the number that the first head must have
        (``None``: any)."""
        self.position = first - 1
        """The last seal's that was fed."""
        self.hash = previous
        self.head_number = None if first_head is None else first_head - 1
        self.last_head: Head | None = None
        self._find_key = find_key

    def check_seal(self, seal: Seal, event: Mapping[str, str | None] | None) -> list[Finding]:
        """What is wrong with the next seal, or with its event."""
        found = []
        expected = self.position + 1
        if seal.position < expected:
            return [_find(FindingKind.INSERTED, seal, "stands at a position that was before")]
        if seal.position > expected:
            last = seal.position - 1
            span = f"position {expected}" if expected == last else f"positions {expected} to {last}"
            found.append(
                Finding(
                    kind=FindingKind.MISSING_SEAL,
                    position=expected,
                    subject="",
                    text=f"{span}: no seal stands there",
                )
            )
        if seal.previous != self.hash and not found:
            found.append(_find(FindingKind.BROKEN_LINK, seal, "does not follow the seal before it"))
        if event is None:
            found.append(_find(FindingKind.MISSING_EVENT, seal, "is gone"))
        elif event["id"] != seal.event_id:
            found.append(_find(FindingKind.CHANGED, seal, f"is sealed, and {event['id']} stands there"))
        elif compute_hash(previous=seal.previous, position=seal.position, event=event) != seal.hash:
            found.append(_find(FindingKind.CHANGED, seal, "or its seal was changed after it was sealed"))
        self.position, self.hash = seal.position, seal.hash
        return found

    def check_head(self, head: Head) -> list[Finding]:
        """What is wrong with the next head, whose position was just fed (or passed over)."""
        found = []
        expected = None if self.head_number is None else self.head_number + 1
        if expected is not None and head.number != expected:
            kind = FindingKind.MISSING_HEAD if head.number > expected else FindingKind.INSERTED
            found.append(_find_head(kind, head, f"is not the one that follows, which is {expected}"))
        if self.position == head.position and self.hash != head.hash:
            found.append(_find_head(FindingKind.HEAD_MISMATCH, head, "states another hash than the chain has there"))
        elif self.position < head.position:
            found.append(_find_head(FindingKind.TRUNCATED, head, "states a position that the chain does not reach"))
        found += check_signature(head, find_key=self._find_key)
        self.head_number, self.last_head = head.number, head
        return found


def check_signature(head: Head, *, find_key: FindKey) -> list[Finding]:
    """What is wrong with a head's signature."""
    key = find_key(head.key_id)
    if key is None:
        return [_find_head(FindingKind.UNKNOWN_KEY, head, f"is signed by {head.key_id}, no audit key of this server")]
    if not is_signature_valid(head, public_key=key):
        return [_find_head(FindingKind.BAD_SIGNATURE, head, "is not what its signature is over")]
    return []


def _find(kind: FindingKind, seal: Seal, text: str) -> Finding:
    return Finding(
        kind=kind,
        position=seal.position,
        subject=seal.event_id,
        text=f"position {seal.position}: event {seal.event_id} {text}",
    )


def _find_head(kind: FindingKind, head: Head, text: str) -> Finding:
    return Finding(
        kind=kind,
        position=head.position,
        subject=str(head.number),
        text=f"head {head.number}, at position {head.position}, {text}",
    )

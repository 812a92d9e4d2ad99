"""The stored chain: read in order and in batches, checked, and exported. Whatever its length, little is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final

import msgspec
from django.db.models import Exists, OuterRef
from msgspec import Struct

from security.domain import audit_chain
from security.domain.audit_chain import (
    EVENT_FIELDS,
    ORIGIN,
    ChainChecker,
    Finding,
    FindingKind,
    FindKey,
    Head,
    Seal,
)
from security.models import AuditChain, AuditEvent, AuditHead, AuditSeal

EXPORT_TYPE: Final = "mcp1.1-audit-export"
MAX_FINDINGS: Final = 100
"""Findings that are kept; beyond them they are counted."""
RECENT: Final = 250
"""Positions that a page of the console checks each time; some 70 µs each."""
MAX_TO_HEAD: Final = 20_000
"""How far from an event its signed head may be for a page to check it."""
_BATCH: Final = 2_000

Described = dict[str, str | None]


class Verification(Struct, kw_only=True):
    """What a check of the stored chain has found."""

    first: int
    last: int
    """The positions that were looked at; ``last`` is below ``first`` where there are none."""
    findings: list[Finding] = []
    """The first ``MAX_FINDINGS``."""
    finding_count: int = 0
    head: Head | None = None
    """The last signed head within."""

    def add(self, found: list[Finding]) -> None:
        self.finding_count += len(found)
        self.findings += found[: MAX_FINDINGS - len(self.findings)]


def get_last_head() -> Head | None:
    """The newest signed head."""
    row = AuditHead.objects.order_by("-number").first()
    return None if row is None else _make_head(row)


def get_first_head_from(*, position: int) -> Head | None:
    """The first signed head that covers the position."""
    row = AuditHead.objects.filter(position__gte=position).order_by("position").first()
    return None if row is None else _make_head(row)


def get_chain_position() -> int:
    """How far the sealer has come."""
    return AuditChain.objects.values_list("position", flat=True).first() or 0


def verify_chain(
    *,
    find_key: FindKey,
    first: int = 1,
    last: int | None = None,
    known_head: Head | None = None,
    report: Callable[[int], None] = lambda _: None,
) -> Verification:
    """Check the stored chain from position ``first`` to ``last``, or to where it has come.

    ``known_head`` is one that was kept elsewhere. ``report`` is told the position, now and then.
    """
    row = AuditChain.objects.first()
    end = 0 if row is None else row.position
    is_whole = last is None or last >= end
    result = Verification(first=first, last=end if last is None else min(last, end))
    checker = ChainChecker(
        first=first, previous=_get_hash_before(first), first_head=1 if first == 1 else None, find_key=find_key
    )
    heads = _iterate_heads(first=first, last=result.last, last_number=0 if row is None else row.head_number)
    head = next(heads, None)
    for seal, event in iterate_seals(first=first, last=result.last):
        # Those at positions that are passed over come first: they say so.
        while head is not None and head.position < seal.position:
            result.add(checker.check_head(head))
            head = next(heads, None)
        result.add(checker.check_seal(seal, event))
        if seal.position % _BATCH == 0:
            report(seal.position)
    while head is not None:
        result.add(checker.check_head(head))
        head = next(heads, None)
    if is_whole:
        result.add(_check_end(checker, row, first=first))
    elif checker.position < result.last:
        result.add([_find_end(FindingKind.TRUNCATED, checker.position + 1, "no seal stands there")])
    if known_head is not None:
        result.add(_check_known_head(known_head, find_key=find_key))
    result.head = checker.last_head
    return result


def verify_recent(*, find_key: FindKey) -> Verification:
    """Check the newest ``RECENT`` positions: what a page can do each time that it is shown."""
    return verify_chain(find_key=find_key, first=max(1, get_chain_position() - RECENT + 1))


def verify_event(*, position: int, find_key: FindKey) -> Verification | None:
    """Check from an event's seal to the first signed head that covers it; ``None``: none does yet, or it is too far."""
    head = get_first_head_from(position=position)
    if head is None or head.position - position > MAX_TO_HEAD:
        return None
    return verify_chain(find_key=find_key, first=position, last=head.position)


def iterate_seals(*, first: int, last: int) -> Iterator[tuple[Seal, Described | None]]:
    """Seals in the order of positions, each with its event as it stands; ``None`` for one that is gone."""
    position = first - 1
    while position < last:
        rows = list(
            AuditSeal.objects.filter(position__gt=position, position__lte=last)
            .order_by("position")
            .values_list("position", "event_id", "previous", "hash")[:_BATCH]
        )
        if not rows:
            return
        events = _load_events([row[1] for row in rows])
        for position, event_id, previous, digest in rows:  # the last is where the next batch begins
            seal = Seal(position=position, event_id=str(event_id), previous=previous, hash=digest)
            yield seal, events.get(seal.event_id)


def export_chain(*, first: int, head: Head, exported_at: datetime) -> Iterator[bytes]:
    """The chain from position ``first`` to the signed head, a line of JSON each, without checking it."""
    heads = _iterate_heads(first=first, last=head.position, last_number=head.number)
    next_head = next(heads, None)
    yield _encode(
        {
            "type": EXPORT_TYPE,
            "from": first,
            "to": head.position,
            "previous": _get_hash_before(first),
            "first_head": head.number if next_head is None else next_head.number,
            "last_head": head.number,
            "exported_at": audit_chain.format_time(exported_at),
        }
    )
    for seal, event in iterate_seals(first=first, last=head.position):
        yield _encode({"position": seal.position, "previous": seal.previous, "hash": seal.hash, "event": event})
        while next_head is not None and next_head.position <= seal.position:
            yield _encode({"head": next_head})
            next_head = next(heads, None)


def _encode(line: object) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def _get_hash_before(first: int) -> str:
    if first == 1:
        return ORIGIN
    found = AuditSeal.objects.filter(position=first - 1).values_list("hash", flat=True).first()
    return found or ORIGIN


def _load_events(ids: list[Any]) -> dict[str, Described]:
    rows = AuditEvent.objects.filter(id__in=ids).order_by().values_list(*EVENT_FIELDS)
    described = (audit_chain.describe_event(dict(zip(EVENT_FIELDS, row, strict=True))) for row in rows)
    return {str(event["id"]): event for event in described}


def _iterate_heads(*, first: int, last: int, last_number: int) -> Iterator[Head]:
    """Heads at the positions, in the order of their numbers; those of later numbers were signed meanwhile."""
    number = 0
    while rows := list(
        AuditHead.objects.filter(
            number__gt=number, number__lte=last_number, position__gte=first, position__lte=last
        ).order_by("number")[:_BATCH]
    ):
        for row in rows:
            number = row.number
            yield _make_head(row)


def _make_head(row: AuditHead) -> Head:
    return Head(
        number=row.number,
        position=row.position,
        hash=row.hash,
        signed_at=audit_chain.format_time(row.signed_at),
        key_id=row.key_id,
        signature=row.signature,
    )


def _check_end(checker: ChainChecker, row: AuditChain | None, *, first: int) -> list[Finding]:
    """Whether the chain ends where its own row says, and nothing stands beyond."""
    found = []
    position, digest, head_number = (0, ORIGIN, 0) if row is None else (row.position, row.hash, row.head_number)
    if checker.position < position:
        found.append(_find_end(FindingKind.TRUNCATED, checker.position + 1, f"the chain had come to {position}"))
    elif checker.position == position and checker.hash != digest:
        found.append(_find_end(FindingKind.CHANGED, position, "the chain's last hash is not what its row says"))
    has_head = first == 1 or (row is not None and row.head_position >= first)
    if has_head and (checker.head_number or 0) < head_number:
        found.append(_find_end(FindingKind.MISSING_HEAD, position, f"head {head_number} was signed, and is gone"))
    # Read again: it may have moved on, with what is beyond.
    now = AuditChain.objects.first()
    end, head_end = (0, 0) if now is None else (now.position, now.head_number)
    beyond = AuditSeal.objects.filter(position__gt=end).order_by("position").first()
    if beyond is not None:
        found.append(_find_end(FindingKind.INSERTED, beyond.position, f"the sealer has come to {end} only"))
    head_beyond = AuditHead.objects.filter(number__gt=head_end).order_by("number").first()
    if head_beyond is not None:
        text = f"head {head_beyond.number} was not signed by the sealer, which has come to head {head_end}"
        found.append(_find_end(FindingKind.INSERTED, head_beyond.position, text))
    return found


def _check_known_head(head: Head, *, find_key: FindKey) -> list[Finding]:
    found = audit_chain.check_signature(head, find_key=find_key)
    digest = AuditSeal.objects.filter(position=head.position).values_list("hash", flat=True).first()
    if digest is None:
        found.append(
            _find_end(FindingKind.TRUNCATED, head.position, "the head that you kept states it, and it is gone")
        )
    elif digest != head.hash:
        found.append(_find_end(FindingKind.HEAD_MISMATCH, head.position, "the head that you kept states another hash"))
    return found


def add_unsealed(result: Verification, *, sealed_before: datetime) -> None:
    """Add the events from before this time that have no seal. It looks at every event."""
    unsealed = AuditEvent.objects.filter(
        ~Exists(AuditSeal.objects.filter(event_id=OuterRef("id"))), at__lt=sealed_before
    ).order_by()
    for event_id, at in unsealed.values_list("id", "at").iterator(chunk_size=_BATCH):
        text = f"event {event_id} of {audit_chain.format_time(at)} has no seal: inserted, or the sealer does not run"
        result.add([Finding(kind=FindingKind.UNSEALED, position=None, subject=str(event_id), text=text)])


def _find_end(kind: FindingKind, position: int, text: str) -> Finding:
    return Finding(kind=kind, position=position, subject="", text=f"position {position}: {text}")

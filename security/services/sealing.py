"""Sealing: giving each audit event its place in the chain, soon after its act, and signing how far the chain has come.

The one appender of seals and heads. Several processes may do it: whoever moves ``AuditChain`` on from where it was has
won the positions, in one transaction with the seals; all others find the chain elsewhere and read again. The chain is
computed before that transaction begins, so that on SQLite commands wait for the inserts only. Commands themselves never
wait for the chain: they add to ``UnsealedEvent``, by a trigger, in their own transactions.
"""

from __future__ import annotations

import logging
import uuid
from datetime import datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.db import IntegrityError, transaction
from django.utils import timezone
from msgspec import Struct

from protocol import statements
from protocol.failpoints import failpoint
from security.domain import audit_chain
from security.domain.audit_chain import EVENT_FIELDS, ORIGIN, Head, Seal
from security.domain.key_states import KeyPurpose
from security.models import AuditChain, AuditEvent, AuditHead, AuditSeal, UnsealedEvent
from security.services.keyring import get_keyring

logger = logging.getLogger(__name__)

BATCH: Final = 250
"""Events sealed in one transaction: some milliseconds of SQLite's one writer."""
HEAD_INTERVAL: Final = timedelta(seconds=10)
"""No two heads are signed within it, but where an export asks for one: 3 MB a day at most, and a tail of so long that
could be cut off without a signed head to tell of it."""
SEALED_WITHIN: Final = timedelta(minutes=1)
"""An event that is older and has no seal was kept from it: the sealer passes twice a second."""


class ChainState(Struct, frozen=True, kw_only=True):
    """How far the chain has come, as the chain's row has it."""

    position: int
    hash: str
    head_number: int
    head_position: int
    head_signed_at: datetime | None


def seal_events() -> int:
    """Seal the oldest events that have no seal, at most ``BATCH``; how many.

    Less than ``BATCH`` says that there are no more, or that another sealer was faster.
    """
    if not UnsealedEvent.objects.exists():
        return 0
    # Before what waits is read: whoever seals it meanwhile has moved the chain on.
    state = load_chain()
    waiting = list(UnsealedEvent.objects.order_by("event_id").values_list("event_id", flat=True)[:BATCH])
    if not waiting:
        return 0
    seals = _compute_seals(state, waiting)
    with transaction.atomic():
        if seals and not _append(state, seals):
            return 0
        UnsealedEvent.objects.filter(event_id__in=waiting).delete()
        failpoint("seal.before_commit")
    failpoint("seal.after_commit")
    return len(waiting)


def sign_chain(*, interval: timedelta = HEAD_INTERVAL) -> Head | None:
    """Sign how far the chain has come, unless that is signed already or the last head is younger than the interval.

    ``None`` where nothing was signed.
    """
    state = load_chain()
    now = timezone.now()
    if state.position == state.head_position:
        return None
    # A last head from the future was signed before the clock went back: the next one does not wait for its time.
    if state.head_signed_at is not None and timedelta(0) <= now - state.head_signed_at < interval:
        return None
    key = get_keyring().get_signing_key(KeyPurpose.AUDIT)
    head = audit_chain.sign_head(
        Head(
            number=state.head_number + 1,
            position=state.position,
            hash=state.hash,
            signed_at=audit_chain.format_time(now),
            key_id=key.id,
        ),
        private_key=key.private_key,
    )
    with transaction.atomic():
        if not _claim_head(state, signed_at=now):
            return None
        statements.insert(
            AuditHead(
                number=head.number,
                position=head.position,
                hash=head.hash,
                signed_at=now,
                key_id=head.key_id,
                signature=head.signature,
            )
        )
        failpoint("sign.before_commit")
    failpoint("sign.after_commit")
    return head


def find_audit_key(key_id: str) -> Ed25519PublicKey | None:
    """The public half of an audit key of this server, of old ones too; ``None``: it is none."""
    return get_keyring(key_id=key_id).get_verifying_key(KeyPurpose.AUDIT, key_id)


def load_chain() -> ChainState:
    """How far the chain has come; its row is made where there is none yet."""
    names = ("position", "hash", "head_number", "head_position", "head_signed_at")
    where = {"id": AuditChain.ONLY_ID}
    rows = statements.select(AuditChain, where=where, names=names)
    if not rows:
        try:
            with transaction.atomic():
                statements.insert(AuditChain(hash=ORIGIN))
        except IntegrityError:
            logger.debug("Another process made the chain's row")
        rows = statements.select(AuditChain, where=where, names=names)
    return ChainState(**dict(zip(names, rows[0], strict=True)))


def _compute_seals(state: ChainState, waiting: list[uuid.UUID]) -> list[Seal]:
    events = AuditEvent.objects.filter(id__in=waiting).order_by("id").values_list(*EVENT_FIELDS)
    seals = []
    position, previous = state.position, state.hash
    for row in events:
        event = audit_chain.describe_event(dict(zip(EVENT_FIELDS, row, strict=True)))
        position += 1
        digest = audit_chain.compute_hash(previous=previous, position=position, event=event)
        seals.append(Seal(position=position, event_id=str(row[0]), previous=previous, hash=digest))
        previous = digest
    if len(seals) != len(waiting):
        logger.critical("%d audit events are gone that were not sealed yet", len(waiting) - len(seals))
    return seals


def _append(state: ChainState, seals: list[Seal]) -> bool:
    """Win the positions and take them; ``False``: another was faster."""
    if not statements.update(
        AuditChain,
        where={"id": AuditChain.ONLY_ID, "position": state.position, "hash": state.hash},
        values={"position": seals[-1].position, "hash": seals[-1].hash},
    ):
        return False
    statements.insert(
        *(
            AuditSeal(position=seal.position, event_id=uuid.UUID(seal.event_id), previous=seal.previous, hash=seal.hash)
            for seal in seals
        )
    )
    return True


def _claim_head(state: ChainState, *, signed_at: datetime) -> bool:
    return bool(
        statements.update(
            AuditChain,
            where={"id": AuditChain.ONLY_ID, "head_number": state.head_number},
            values={
                "head_number": state.head_number + 1,
                "head_position": state.position,
                "head_signed_at": signed_at,
            },
        )
    )

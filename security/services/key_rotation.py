"""Changing keys of the ring while everything runs: each step is a transaction, and whoever comes next goes on from it.

A rotation is begun by making the next key, ``pending``. What follows is done by whoever calls ``advance_rotations``:
the command that waits for it, and the scheduler, so that it ends also when the command was killed. A pending key is
activated once every process has had the time to read it. Then values under older at-rest keys are sealed anew, and a
key of which nothing counts any more is retired.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.utils import timezone

from protocol import statements
from protocol.failpoints import failpoint
from protocol.ports import Principal
from security.domain.key_states import (
    SIGNATURES_COUNT_FOR,
    KeyEvent,
    KeyPurpose,
    RingKeyState,
    get_next_state,
    has_secret,
)
from security.models import EncryptionKey
from security.selectors import find_key, has_tokens_of, list_aged_keys, list_keys
from security.services.key_making import get_ring_master_key, make_key, record_key_act
from security.services.keyring import forget_keyring, get_waits
from security.services.resealing import Pass, count_sealed, reseal
from security.services.revocation import move_revocation_mark

logger = logging.getLogger(__name__)


def begin_rotation(
    *, purpose: KeyPurpose, principal: Principal | None = None, publish_for: timedelta = timedelta(0)
) -> EncryptionKey:
    """The purpose's next key: a new one, to be used after ``publish_for``, or as soon as every process knows it.

    Where one is pending already it is that one; it is used by then at the latest.
    """
    publish_for = max(publish_for, get_waits().published_for)
    try:
        with transaction.atomic():
            # Locked first: a master key that is changed meanwhile is either seen here or has this key wrapped anew.
            move_revocation_mark()
            key = make_key(purpose=purpose, state=RingKeyState.PENDING, publish_for=publish_for)
            statements.insert(key)
            record_key_act(action="keys.publish", key=key, outcome=key.state, principal=principal)
    except IntegrityError:
        pending = find_key(purpose=purpose, state=RingKeyState.PENDING)
        if pending is None:
            raise
        return _bring_forward(pending, publish_for=publish_for, principal=principal)
    logger.info("Key %s (%s) is published", key.id, purpose)
    failpoint("rotate.after_publish")
    forget_keyring()
    return key


def _bring_forward(pending: EncryptionKey, *, publish_for: timedelta, principal: Principal | None) -> EncryptionKey:
    activates_at = timezone.now() + publish_for
    if pending.activates_at <= activates_at:
        return pending
    with transaction.atomic():
        if statements.update(
            EncryptionKey,
            where={"id": pending.id, "state": pending.state},
            values={"activates_at": activates_at},
        ):
            pending.activates_at = activates_at
            record_key_act(action="keys.publish", key=pending, outcome="sooner", principal=principal)
    return pending


def list_unfinished(*, now: datetime) -> list[EncryptionKey]:
    """The keys that a rotation has yet to activate, or to retire once nothing is sealed under them.

    A key that is published for later is none: its time has not come.
    """
    return [
        key
        for key in list_keys()
        if (key.state == RingKeyState.PENDING.value and key.activates_at <= now + get_waits().published_for)
        or (key.state == RingKeyState.RETIRING.value and key.purpose == KeyPurpose.AT_REST.value)
    ]


def advance_rotations(*, seconds: float) -> Pass:
    """Do what is due of all rotations, sealing anew for so many seconds at most. It may be called by many at once."""
    now = timezone.now()
    for key in list_keys():
        if key.state == RingKeyState.PENDING.value and key.activates_at <= now:
            _activate(key)
    done = reseal(key_ids=_list_at_rest_ids(states={RingKeyState.RETIRING}), seconds=seconds)
    for key in list_keys():
        if key.state == RingKeyState.RETIRING.value and _can_retire(key, now=timezone.now()):
            _retire(key)
    return done


def reseal_stragglers(*, seconds: float) -> Pass:
    """Seal anew also what came to lie under a retired key: by a transaction that outlasted it, or from a backup."""
    states = {RingKeyState.RETIRING, RingKeyState.RETIRED}
    return reseal(key_ids=_list_at_rest_ids(states=states), seconds=seconds)


def warn_of_aged_keys() -> list[EncryptionKey]:
    """Say in the log which keys should be replaced; those keys."""
    now = timezone.now()
    aged = list_aged_keys(now=now)
    for key in aged:
        logger.warning(
            "Key %s (%s) is in use for %d days; replace it: manage.py rotate_keys --purpose %s",
            key.id,
            key.purpose,
            key.get_days_in_use(now=now),
            key.purpose,
        )
    return aged


def _list_at_rest_ids(*, states: Collection[RingKeyState]) -> list[str]:
    return [key.id for key in list_keys() if key.purpose == KeyPurpose.AT_REST.value and key.state in states]


def _activate(pending: EncryptionKey) -> None:
    """Have the pending key do the work from now on, and the active one of its purpose do no more."""
    now = timezone.now()
    with transaction.atomic():
        move_revocation_mark()
        active = find_key(purpose=KeyPurpose(pending.purpose), state=RingKeyState.ACTIVE)
        if active is not None:
            _replace(active, now=now)
        if not _change_state(pending, KeyEvent.ACTIVATE, activated_at=now):
            # Somebody was faster; what was changed here is undone with it.
            transaction.set_rollback(True)  # takes no keyword
            return
        record_key_act(action="keys.activate", key=pending, outcome=pending.state)
        failpoint("rotate.before_activation")
    logger.info("Key %s (%s) is active", pending.id, pending.purpose)
    failpoint("rotate.after_activation")
    forget_keyring()


def _replace(active: EncryptionKey, *, now: datetime) -> None:
    purpose = KeyPurpose(active.purpose)
    values: dict[str, object] = {"replaced_at": now}
    if not has_secret(purpose=purpose, state=RingKeyState.RETIRING):
        # What is left proves that the public half is the server's.
        master_key = get_ring_master_key()
        values["wrapped"] = master_key.wrap(label=active.get_label(), secret=b"")
        values["master_key_id"] = master_key.id
    if _change_state(active, KeyEvent.REPLACE, **values):
        record_key_act(action="keys.replace", key=active, outcome=active.state)


def _can_retire(key: EncryptionKey, *, now: datetime) -> bool:
    assert key.replaced_at is not None  # noqa: S101  # its state says so
    match KeyPurpose(key.purpose):
        case KeyPurpose.AT_REST:
            # Not before the last process that had it for the active one has read the ring again.
            return now - key.replaced_at >= get_waits().grace and not count_sealed(key_id=key.id)
        case KeyPurpose.JWT:
            signed_before = key.replaced_at + get_waits().grace
            return now >= signed_before and not has_tokens_of(issued_before=signed_before, now=now)
        case KeyPurpose.IDENTITY | KeyPurpose.AUDIT:
            return now - key.replaced_at >= SIGNATURES_COUNT_FOR


def _retire(key: EncryptionKey) -> None:
    with transaction.atomic():
        move_revocation_mark()
        if not _change_state(key, KeyEvent.RETIRE, retired_at=timezone.now()):
            return
        record_key_act(action="keys.retire", key=key, outcome=key.state)
        failpoint("rotate.before_retirement")
    logger.info("Key %s (%s) is retired", key.id, key.purpose)
    forget_keyring()


def _change_state(key: EncryptionKey, event: KeyEvent, **values: object) -> bool:
    """Take the table's step; ``False``: the key is in another state by now."""
    state = get_next_state(state=RingKeyState(key.state), event=event).value
    changed = statements.update(
        EncryptionKey, where={"id": key.id, "state": key.state}, values={"state": state, **values}
    )
    if changed:
        key.state = state
    return changed > 0

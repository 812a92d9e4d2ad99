"""Making keys of the ring: the first ones, and the look at all of them before anything starts."""

from __future__ import annotations

from datetime import timedelta

from django.db import IntegrityError, transaction
from django.utils import timezone

from protocol import statements
from protocol.ports import Principal, Resource
from security.domain.key_states import ALGORITHMS, KeyPurpose, RingKeyState
from security.domain.keyring import make_label, make_secret
from security.domain.master_keys import MasterKey, NotUnwrapped
from security.models import EncryptionKey
from security.selectors import list_keys
from security.services import audit
from security.services.keyring import forget_keyring, unwrap_key
from security.services.master_key import MasterKeyUnusable, forget_master_keys, get_master_keys, get_wrapping_key
from security.services.revocation import move_revocation_mark


def ensure_first_keys() -> None:
    """Make an active key for each purpose that has none, once every stored key was found to open.

    Several nodes may do so at once: one of them makes each key, and all go on with that one.

    Raises:
        MasterKeyUnusable: there is no master key, or it does not open the keys that are stored.
    """
    check_keys()
    made = [_make_first_key(purpose) for purpose in KeyPurpose if not _has_active_key(purpose)]
    if any(made):
        forget_keyring()


def check_keys() -> None:
    """Unwrap every stored key.

    Raises:
        MasterKeyUnusable: there is no master key, or one of the keys does not open.
    """
    wrapping_id = get_wrapping_key().id
    for row in list_keys():
        try:
            unwrap_key(row)
        except NotUnwrapped as error:
            if row.master_key_id != wrapping_id:
                raise _make_refusal(given=wrapping_id, wanted=row.master_key_id) from error
            raise MasterKeyUnusable(
                f"key {row.id} ({row.purpose}) in the database was changed by something else than this server: "
                "restore security_encryptionkey from a backup"
            ) from error


def make_key(*, purpose: KeyPurpose, state: RingKeyState, publish_for: timedelta = timedelta(0)) -> EncryptionKey:
    """A new key, wrapped, not saved; active, or pending for so long."""
    now, secret, master_key = timezone.now(), make_secret(), get_ring_master_key()
    label = make_label(purpose=purpose, algorithm=ALGORITHMS[purpose], secret=secret)
    return EncryptionKey(
        id=label.id,
        purpose=purpose.value,
        state=state.value,
        algorithm=label.algorithm.value,
        public_key=label.public_key,
        wrapped=master_key.wrap(label=label, secret=secret),
        master_key_id=master_key.id,
        created_at=now,
        activates_at=now + publish_for,
        activated_at=now if state is RingKeyState.ACTIVE else None,
    )


def get_ring_master_key() -> MasterKey:
    """The master key that wraps the ring: a new one that is given does not before ``rotate_master_key`` wrapped all.

    So a key that is made meanwhile opens on nodes that have the old one only. To be called with the revocation mark
    moved, so that the master key does not change between this and what is wrapped.

    Raises:
        MasterKeyUnusable: there is no master key, or it is not the one that wraps the ring.
    """
    in_use = set(EncryptionKey.objects.values_list("master_key_id", flat=True).distinct())
    if not in_use:
        return get_wrapping_key()
    if in_use.isdisjoint(get_master_keys()):
        forget_master_keys()
    for key_id, master_key in get_master_keys().items():
        if key_id in in_use:
            return master_key
    raise _make_refusal(given=get_wrapping_key().id, wanted=min(in_use))


def record_key_act(*, action: str, key: EncryptionKey, outcome: str, principal: Principal | None = None) -> None:
    """Record what was done to a key; without ``principal`` by the server itself."""
    audit.record_event(
        action=action,
        resource=Resource(kind="key", name=key.id),
        outcome=outcome,
        principal=principal,
        data={"purpose": key.purpose, "algorithm": key.algorithm, "master_key_id": key.master_key_id},
    )


def _make_refusal(*, given: str, wanted: str) -> MasterKeyUnusable:
    return MasterKeyUnusable(
        f"the master key ({given}) is not the one that wrapped this database's keys ({wanted}): give MCP_MASTER_KEY "
        "that one, or restore its file"
    )


def _has_active_key(purpose: KeyPurpose) -> bool:
    return EncryptionKey.objects.filter(purpose=purpose.value, state=RingKeyState.ACTIVE.value).exists()


def _make_first_key(purpose: KeyPurpose) -> bool:
    """Whether this call made it; another process may have been faster."""
    try:
        with transaction.atomic():
            # Locked first, as by whoever changes the master key.
            move_revocation_mark()
            key = make_key(purpose=purpose, state=RingKeyState.ACTIVE)
            statements.insert(key)
            record_key_act(action="keys.create", key=key, outcome="active")
    except IntegrityError:
        if _has_active_key(purpose):
            return False
        raise
    return True

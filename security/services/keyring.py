"""The process's key ring: read from the database, kept for some seconds, shared by all threads.

A snapshot is read again once it is older than ``Waits.snapshot_age``, when the revocation mark has moved, and, at most
once in ``UNKNOWN_KEY_SECONDS``, when somebody names a key that it lacks. On an event loop nobody waits for that: the
snapshot at hand is given, and a thread reads the next one. Only a process that was idle, whose snapshot is so old that
its keys may have been replaced long ago, has its loop wait, for a moment, and once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from django.conf import settings
from django.db import connections

from protocol.ports import Sealed
from security.domain.key_states import RingKeyState, Waits, has_secret, make_waits
from security.domain.keyring import Keyring, RingKey
from security.domain.master_keys import NotUnwrapped
from security.models import EncryptionKey
from security.selectors import get_revocation_mark, list_keys
from security.services.master_key import get_master_keys

logger = logging.getLogger(__name__)

UNKNOWN_KEY_SECONDS: Final = 1.0
"""How old a snapshot must be to be read again for a key that it lacks: strangers make up ids."""
LOOP_SECONDS: Final = 1.0
"""How long an event loop waits at most for a snapshot in the place of one that has lapsed."""


def get_waits() -> Waits:
    """How long rotations wait in this installation."""
    return make_waits(seconds=settings.MCP.key_wait_seconds)


class _Snapshots:
    """The newest snapshot and what it takes to read the next."""

    def __init__(self) -> None:
        self.ring: Keyring | None = None
        self._read_at = 0.0
        self._mark = -1
        self._is_outdated = False
        self._unwrapped: dict[str, RingKey] = {}
        self._refused: set[bytes] = set()
        self._lock = threading.Lock()
        self._is_reading_behind = False

    def get(self, *, lacking: str | None) -> Keyring:
        ring = self.ring
        if ring is not None and not self._is_due(ring, lacking):
            return ring
        if not _is_on_event_loop():
            return self._read(lacking)
        if ring is None:
            return _run_in_thread(lambda: self._read(lacking), wait_seconds=None) or Keyring()
        if not self._is_reading_behind:
            self._is_reading_behind = True
            has_lapsed = self._get_age() >= get_waits().published_for.total_seconds()
            return _run_in_thread(self._read_behind, wait_seconds=LOOP_SECONDS if has_lapsed else 0.0) or ring
        return ring

    def note_mark(self, mark: int) -> None:
        """Whoever watches the mark says where it stands."""
        if mark != self._mark:
            self._is_outdated = True

    def _get_age(self) -> float:
        return time.monotonic() - self._read_at

    def _is_due(self, ring: Keyring, lacking: str | None) -> bool:
        age = self._get_age()
        if self._is_outdated or age >= get_waits().snapshot_age.total_seconds():
            return True
        return lacking is not None and age >= UNKNOWN_KEY_SECONDS and not ring.has_key(lacking)

    def _read(self, lacking: str | None) -> Keyring:
        with self._lock:
            # Another thread may have done it while this one waited.
            if self.ring is not None and not self._is_due(self.ring, lacking):
                return self.ring
            self._is_outdated = False
            read_at, mark = time.monotonic(), get_revocation_mark()
            ring = Keyring(self._unwrap(list_keys()))
            self.ring, self._read_at, self._mark = ring, read_at, mark
            return ring

    def _read_behind(self) -> Keyring:
        try:
            return self._read(None)
        finally:
            self._is_reading_behind = False

    def _unwrap(self, rows: list[EncryptionKey]) -> list[RingKey]:
        """The keys that open. Each is unwrapped once: a change of the master key is nothing to who has read it."""
        known, self._unwrapped = self._unwrapped, {}
        for row in rows:
            label, state = row.get_label(), RingKeyState(row.state)
            key = known.get(row.id)
            if key is None or key.label != label:
                try:
                    secret = unwrap_key(row)
                except NotUnwrapped:
                    self._complain(row)
                    continue
                key = RingKey(label=label, state=state, since=row.created_at, secret=secret)
            secret = key.secret if has_secret(purpose=key.purpose, state=state) else b""
            self._unwrapped[row.id] = replace(key, state=state, secret=secret)
        return list(self._unwrapped.values())

    def _complain(self, row: EncryptionKey) -> None:
        """Once of each wrapping: it is met again each time."""
        if bytes(row.wrapped) not in self._refused:
            self._refused.add(bytes(row.wrapped))
            logger.error(
                "Key %s cannot be used: it was wrapped by another master key (%s), or changed since",
                row.id,
                row.master_key_id,
            )


_snapshots = _Snapshots()


def forget_keyring() -> None:
    """Have the next one who asks read the keys anew: in a child process, and after a change in this one."""
    global _snapshots
    _snapshots = _Snapshots()


# A child must not inherit a lock that a thread of its parent held.
os.register_at_fork(after_in_child=forget_keyring)


def get_keyring(*, key_id: str | None = None) -> Keyring:
    """The process's snapshot; one that lacks ``key_id`` is read again, within the bounds that the module states.

    It may query where there is no event loop; on one it does not wait, but as the module states, and for the very
    first snapshot.

    Raises:
        MasterKeyUnusable: there is no master key.
        DatabaseError: the keys could not be read.
    """
    return _snapshots.get(lacking=key_id)


def note_revocation_mark(mark: int) -> None:
    """Have the snapshot read again if the mark is not where it was when the keys were read."""
    _snapshots.note_mark(mark)


class KeyringVault:
    """``protocol.ports.Vault`` by the process's key ring."""

    def seal(self, *, plaintext: bytes, aad: bytes) -> Sealed:
        return get_keyring().seal(plaintext=plaintext, aad=aad)

    def open(self, *, key_id: str, data: bytes, aad: bytes) -> bytes:
        return get_keyring(key_id=key_id).open(key_id=key_id, data=data, aad=aad)


def unwrap_key(row: EncryptionKey) -> bytes:
    """The key's secret half, empty where it was wiped. A master key that is not known is looked for anew.

    Raises:
        NotUnwrapped: no master key of this process opens it.
        MasterKeyUnusable: there is no master key.
    """
    master_keys = get_master_keys(key_id=row.master_key_id)
    if row.master_key_id not in master_keys:
        raise NotUnwrapped(f"key {row.id}: by master key {row.master_key_id}")
    return master_keys[row.master_key_id].unwrap(label=row.get_label(), wrapped=bytes(row.wrapped))


def _is_on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run_in_thread(read: Callable[[], Keyring], *, wait_seconds: float | None) -> Keyring | None:
    """What was read within the time; ``wait_seconds`` of ``None``: however long it takes, of 0: nothing yet."""
    results: list[Keyring] = []

    def run() -> None:
        try:
            results.append(read())
        except Exception:  # the thread's edge: the snapshot at hand goes on being used
            logger.exception("The key ring could not be read")
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, daemon=True, name="keyring")
    thread.start()
    if wait_seconds == 0:
        return None
    thread.join(wait_seconds)
    return results[0] if results else None

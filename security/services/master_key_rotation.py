"""Changing the master key: every key of the ring is wrapped by the new one, in one transaction.

While that goes on, both are given: the new one first, then the old one. In the data folder's own file that is done
here; elsewhere whoever gives the master key has done it.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db import transaction

from protocol import statements
from protocol.failpoints import failpoint
from protocol.ports import Resource
from security.domain.master_keys import generate_master_key, split_master_keys
from security.models import EncryptionKey
from security.selectors import list_keys
from security.services import audit
from security.services.keyring import unwrap_key
from security.services.master_key import forget_master_keys, get_master_keys, get_wrapping_key
from security.services.private_files import write_private_file
from security.services.revocation import move_revocation_mark

logger = logging.getLogger(__name__)


class NothingToRotate(Exception):
    """Every key is wrapped by the master key of now, and there is no other one to change to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrapped:
    """What came of it."""

    master_key_id: str
    count: int
    """Keys that were wrapped anew."""
    path: Path | None
    """The data folder's file, where the master key lies there: it has the new one alone now."""


def rotate_master_key() -> Rewrapped:
    """Change the master key; after an interruption anywhere it goes on.

    Raises:
        NothingToRotate: the master key comes from elsewhere, and no new one is given there.
        NotUnwrapped: a key does not open; nothing was changed.
        MasterKeyUnusable: there is no master key.
        OSError: the data folder's file cannot be written.
    """
    path = _get_own_file()
    with _hold_alone(path):
        return _rotate(path)


def _rotate(path: Path | None) -> Rewrapped:
    if path is not None and len(split_master_keys(path.read_text(encoding="ascii"))) == 1:
        write_private_file(path, "\n".join([generate_master_key(), path.read_text(encoding="ascii").strip()]))
        failpoint("rewrap.after_file")
    forget_master_keys()
    if len(get_master_keys()) == 1 and not _list_others():
        raise NothingToRotate
    count = _rewrap()
    failpoint("rewrap.after_commit")
    if path is not None and not _list_others():
        write_private_file(path, split_master_keys(path.read_text(encoding="ascii"))[0])
        forget_master_keys()
    return Rewrapped(master_key_id=get_wrapping_key().id, count=count, path=path)


def _get_own_file() -> Path | None:
    """The file that the data folder's master key lies in, if that is the one that is used."""
    path = settings.MCP.data_dir / "secrets" / "master_key"
    return path if settings.MCP.master_key_file == path else None


@contextmanager
def _hold_alone(path: Path | None) -> Iterator[None]:
    """One process at a time changes the file: of two new keys one would be lost, with what it wrapped."""
    if path is None:
        yield
        return
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _list_others() -> list[EncryptionKey]:
    master_key_id = get_wrapping_key().id
    return [key for key in list_keys() if key.master_key_id != master_key_id]


def _rewrap() -> int:
    with transaction.atomic():
        # Locked first, as by whoever makes a key: that key is either among these, or wrapped by the new one.
        move_revocation_mark()
        master_key, keys = get_wrapping_key(), _list_others()
        for key in keys:
            wrapped = master_key.wrap(label=key.get_label(), secret=unwrap_key(key))
            statements.update(
                EncryptionKey, where={"id": key.id}, values={"wrapped": wrapped, "master_key_id": master_key.id}
            )
        audit.record_event(
            action="keys.rewrap",
            resource=Resource(kind="master_key", name=master_key.id),
            outcome="active",
            data={"keys": len(keys), "from": sorted({key.master_key_id for key in keys})},
        )
        failpoint("rewrap.before_commit")
    logger.info("%d keys are wrapped by master key %s", len(keys), master_key.id)
    return len(keys)

"""What is sealed at rest, wherever it lies, and sealing it anew under the key of now.

Every `SealedField` of every installed model is found by itself. Each batch is a short transaction of conditional
updates: a value that was written meanwhile is left as it is, and whoever goes through at the same time does no harm.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db import transaction

from protocol import statements
from protocol.failpoints import failpoint
from protocol.ports import Sealed
from protocol.sealed_fields import SealedField, list_sealed_fields
from security.domain.keyring import KeyUnknown, NotOpened

logger = logging.getLogger(__name__)

BATCH_SIZE: Final = 200
"""Rows sealed anew in one transaction: on SQLite, writers of all processes wait for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What became of some rows of a store."""

    last: Any
    """Where the next batch goes on; ``None``: there was nothing left."""
    resealed: int = 0
    unreadable: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What became of a pass over all stores."""

    resealed: int
    unreadable: int
    is_complete: bool
    """``False``: its time was over before the end."""


def count_sealed(*, key_id: str) -> int:
    """How many values in all stores are sealed under the key."""
    return sum(store.count(key_id=key_id) for store in _list_stores())


def reseal(*, key_ids: Sequence[str], seconds: float) -> Pass:
    """Seal anew whatever is under these keys, until it is done or the time is over."""
    resealed = unreadable = 0
    give_up_at = time.monotonic() + seconds
    for key_id in key_ids:
        for store in _list_stores():
            after = None
            while True:
                batch = store.reseal(key_id=key_id, after=after, limit=BATCH_SIZE)
                resealed, unreadable, after = resealed + batch.resealed, unreadable + batch.unreadable, batch.last
                if after is None:
                    break
                failpoint("rotate.after_batch")
                if time.monotonic() >= give_up_at:
                    return Pass(resealed=resealed, unreadable=unreadable, is_complete=False)
    return Pass(resealed=resealed, unreadable=unreadable, is_complete=True)


class FieldStore:
    """A model's sealed field, as a place that is gone through."""

    def __init__(self, field: SealedField) -> None:
        self.name = str(field)
        self._field = field
        self._model = field.model

    def count(self, *, key_id: str) -> int:
        """How many values are sealed under the key."""
        return self._model._default_manager.filter(**{self._field.key_id_field: key_id}).count()  # noqa: SLF001  # Django's documented API

    def reseal(self, *, key_id: str, after: Any, limit: int) -> Batch:
        """Seal the next values of this key anew, in the order of their rows; ``after`` is the last batch's ``last``.

        Called in no transaction.
        """
        rows = self._model._default_manager.filter(**{self._field.key_id_field: key_id}).order_by("pk")  # noqa: SLF001  # as above
        if after is not None:
            rows = rows.filter(pk__gt=after)
        found = list(rows.values_list("pk", self._field.attname, *self._field.bound_to)[:limit])
        changes = [
            (pk, value, sealed) for pk, value, *row in found if (sealed := self._seal_anew(pk, key_id, value, row))
        ]
        with transaction.atomic():
            done = sum(self._update(pk, key_id, value, sealed) for pk, value, sealed in changes)
        return Batch(
            last=found[-1][0] if len(found) == limit else None,
            resealed=done,
            unreadable=len(found) - len(changes),
        )

    def _seal_anew(self, pk: Any, key_id: str, value: Any, row: Sequence[Any]) -> Sealed | None:
        try:
            plaintext = self._field.open(data=value.data, key_id=key_id, row=row)
        except (KeyUnknown, NotOpened):
            logger.error(  # noqa: TRY400  # where it failed says nothing, which row everything
                "%s of row %s cannot be opened under key %s", self.name, pk, key_id
            )
            return None
        return self._field.seal(plaintext=plaintext, row=row)

    def _update(self, pk: Any, key_id: str, value: Any, sealed: Sealed) -> int:
        # Only while it is what was read: who wrote it meanwhile did so under a key of now, or is found again.
        return statements.update(
            self._model,
            where={self._model._meta.pk.attname: pk, self._field.key_id_field: key_id, self._field.attname: value},
            values={self._field.key_id_field: sealed.key_id, self._field.attname: self._field.make_value(sealed)},
        )


def _list_stores() -> list[FieldStore]:
    return [FieldStore(field) for field in list_sealed_fields()]

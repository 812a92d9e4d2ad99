"""Rows that are sealed by hand, not by a `SealedField`, as stores that key rotation goes through."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import models, transaction

from protocol import outbox
from protocol.models import OutboxMessage
from security.domain.keyring import KeyUnknown, NotOpened
from security.models import AuthenticatorApp
from security.services.keyring import get_keyring
from security.services.resealing import Batch
from security.services.second_factors import bind_secret

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class RowStore:
    """``resealing.SealedStore`` of a model whose rows have a ``key_id`` beside what is sealed."""

    name: str
    model: type[models.Model]
    data_field: str
    make_aad: Callable[[Any], bytes]
    """What a row's value is bound to."""

    def count(self, *, key_id: str) -> int:
        return self._filter(key_id=key_id).count()

    def reseal(self, *, key_id: str, after: Any, limit: int) -> Batch:
        rows = self._filter(key_id=key_id).order_by("pk")
        found = list(rows[:limit] if after is None else rows.filter(pk__gt=after)[:limit])
        opened = [(row, plaintext) for row in found if (plaintext := self._open(row, key_id)) is not None]
        resealed = 0
        with transaction.atomic():
            for row, plaintext in opened:
                sealed = get_keyring().seal(plaintext=plaintext, aad=self.make_aad(row))
                # What a row holds is never changed: where the key is still this one, so is what was read.
                resealed += self._filter(pk=row.pk, key_id=key_id).update(
                    key_id=sealed.key_id, **{self.data_field: sealed.data}
                )
        last = found[-1].pk if len(found) == limit else None
        return Batch(last=last, resealed=resealed, unreadable=len(found) - len(opened))

    def _filter(self, **conditions: Any) -> models.QuerySet[Any]:
        return self.model._default_manager.filter(**conditions)  # noqa: SLF001  # Django's documented API

    def _open(self, row: Any, key_id: str) -> bytes | None:
        try:
            data = bytes(getattr(row, self.data_field))
            return get_keyring(key_id=key_id).open(key_id=key_id, data=data, aad=self.make_aad(row))
        except (KeyUnknown, NotOpened):
            logger.error("%s of row %s cannot be opened under key %s", self.name, row.pk, key_id)  # noqa: TRY400  # where it failed says nothing, which row everything
            return None


ROW_STORES = (
    RowStore(
        name="authenticator apps' secrets",
        model=AuthenticatorApp,
        data_field="sealed_secret",
        make_aad=lambda app: bind_secret(app.pk),
    ),
    RowStore(
        name="what sealed sessions are owed",
        model=OutboxMessage,
        data_field="payload",
        make_aad=lambda message: outbox.make_aad(message.session_id, message.sequence),
    ),
)

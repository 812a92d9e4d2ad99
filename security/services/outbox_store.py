"""The outbox as a store of sealed values: rotation seals anew what sessions at sealed levels are still owed."""

from __future__ import annotations

import logging
from typing import Any

from django.db import transaction

from protocol import statements
from protocol.models import OutboxMessage
from protocol.outbox import make_aad
from security.domain.keyring import KeyUnknown, NotOpened
from security.services.keyring import get_keyring
from security.services.resealing import Batch

logger = logging.getLogger(__name__)


class OutboxStore:
    """``services.resealing.SealedStore``. Its rows come and go with their sessions; only sealed ones have a key."""

    name = "protocol.outboxmessage.payload"

    def count(self, *, key_id: str) -> int:
        """How many messages are sealed under the key."""
        return OutboxMessage.objects.filter(key_id=key_id).count()

    def reseal(self, *, key_id: str, after: Any, limit: int) -> Batch:
        """Seal the next messages of this key anew; ``after`` is the last one's id."""
        rows = OutboxMessage.objects.filter(key_id=key_id, id__gt=after or 0).order_by("id")
        found = list(rows.values_list("id", "session_id", "sequence", "payload")[:limit])
        ring, resealed, unreadable = get_keyring(), 0, 0
        with transaction.atomic():
            for row_id, session_id, sequence, payload in found:
                aad = make_aad(session_id, sequence)
                try:
                    sealed = ring.seal(plaintext=ring.open(key_id=key_id, data=bytes(payload), aad=aad), aad=aad)
                except (KeyUnknown, NotOpened):
                    logger.error("Message %d of session %s cannot be opened", sequence, session_id)  # noqa: TRY400  # where it failed says nothing
                    unreadable += 1
                    continue
                # One that was acknowledged meanwhile is gone.
                resealed += statements.update(
                    OutboxMessage,
                    where={"id": row_id, "key_id": key_id},
                    values={"key_id": sealed.key_id, "payload": sealed.data},
                )
        last = found[-1][0] if len(found) == limit else None
        return Batch(last=last, resealed=resealed, unreadable=unreadable)

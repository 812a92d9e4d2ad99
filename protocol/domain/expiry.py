"""What the end of a credential means for a live connection (protocol.md section 5): warned, refused, closed."""

from __future__ import annotations

import enum
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct


class ExpiryStage(enum.Enum):
    LASTING = "lasting"
    EXPIRING = "expiring"
    """It ends soon: the client is told, once."""
    EXPIRED = "expired"
    """Commands are refused; the client may still authenticate again."""
    OVER = "over"
    """The connection is closed."""


class ExpiryTimes(Struct, frozen=True, kw_only=True):
    """How long before its end the client is warned, and how long after it the connection stays."""

    warning: timedelta = timedelta(seconds=60)
    closing: timedelta = timedelta(seconds=30)


DEFAULT_EXPIRY_TIMES: Final = ExpiryTimes()


def get_expiry_stage(*, expires_at: datetime | None, now: datetime, times: ExpiryTimes) -> ExpiryStage:
    """The stage at ``now``; a credential that does not end is always lasting."""
    if expires_at is None or now < expires_at - times.warning:
        return ExpiryStage.LASTING
    if now < expires_at:
        return ExpiryStage.EXPIRING
    return ExpiryStage.EXPIRED if now < expires_at + times.closing else ExpiryStage.OVER

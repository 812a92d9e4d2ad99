"""The scheduler's rule: housekeeping runs in the scheduler's own process, everything else goes to the workers.

Housekeeping must work exactly when workers or broker do not: it ends what nobody ended and sends what was never sent.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from django_celery_beat.schedulers import DatabaseScheduler

logger = logging.getLogger(__name__)

HOUSEKEEPING: Final = frozenset(
    {
        "tools.send_waiting_executions",
        "tools.reap_executions",
        "tools.purge_executions",
        "protocol.expire_sessions",
        "security.sweep_port_leases",
        "security.advance_rotations",
        "security.reseal_stragglers",
        "security.warn_of_aged_keys",
    }
)


class HousekeepingScheduler(DatabaseScheduler):  # type: ignore[misc]  # the library is untyped
    """Celery beat's database scheduler with the module's rule."""

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002  # beat's signature
        """Send the task of a due entry, or run it here."""
        if entry.task not in HOUSEKEEPING:
            return super().apply_async(entry, producer=producer, advance=advance, **kwargs)
        if advance:
            self.reserve(entry)
        try:
            return self.app.tasks[entry.task].apply(throw=True)
        except Exception:
            # The scheduler's edge: the next round tries again.
            logger.exception("Housekeeping %s failed", entry.task)
            return None

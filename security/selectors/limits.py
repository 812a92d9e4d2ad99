"""The limits that operators set: as rules, which of them somebody falls under, and what is left of quotas."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Collection
from datetime import date
from typing import Final

from protocol.errors import Misconfigured
from security.domain.limits import LimitRule
from security.domain.policy import PatternInvalid
from security.models import Limit, LimitUsage

REUSE_SECONDS: Final = 0.5
"""How old the rules may be that somebody authenticates with."""

_lock = threading.Lock()
_rules: tuple[LimitRule, ...] = ()
_read_at = float("-inf")


def read_rules() -> tuple[LimitRule, ...]:
    """All limits that are enabled, by name, as they are now; one query.

    Raises:
        Misconfigured: a stored one is not valid; nothing is allowed without it.
    """
    global _rules, _read_at
    read_at = time.monotonic()
    try:
        rules = tuple(limit.to_rule() for limit in Limit.objects.filter(is_enabled=True).select_related("role"))
    except PatternInvalid as error:
        raise Misconfigured("A limit is not valid.") from error
    with _lock:
        if read_at >= _read_at:
            _rules, _read_at = rules, read_at
    return rules


def get_rules() -> tuple[LimitRule, ...]:
    """As ``read_rules``, at most ``REUSE_SECONDS`` old: every HTTP request authenticates."""
    with _lock:
        if time.monotonic() - _read_at < REUSE_SECONDS:
            return _rules
    return read_rules()


def forget_rules() -> None:
    """Have them read at the next use: one changed."""
    global _read_at
    with _lock:
        _read_at = float("-inf")


def select_rules(
    rules: Collection[LimitRule], *, account_id: uuid.UUID, roles: Collection[str], api_key_id: uuid.UUID | None
) -> tuple[LimitRule, ...]:
    """Those that are about whoever this is."""
    return tuple(rule for rule in rules if rule.is_about(account_id=account_id, roles=roles, api_key_id=api_key_id))


def get_used(*, limit_id: uuid.UUID, subject: str, window_start: date) -> int:
    """How much of a quota was handed out in the window."""
    found = LimitUsage.objects.filter(limit_id=limit_id, subject=subject, window_start=window_start)
    return found.values_list("used", flat=True).first() or 0

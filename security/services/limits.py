"""Setting limits, and telling what is left of them. How they are counted is ``limiting``'s.

Each change is one transaction with its audit event and the mark that a receiver moves: every process counts by it
within a second.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from protocol import ports
from protocol.ports import Principal, Resource
from security import selectors
from security.domain.limits import LimitRule, get_window_start
from security.models import Account, Limit, LimitUsage
from security.services import audit
from security.services.limit_sources import RedisBuckets, SourceUnavailable
from security.services.limiting import SharedLimiter

USAGE_KEPT: Final = timedelta(days=92)
"""How long a quota's window stays visible."""
PURGE_LIMIT: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitStanding:
    """How somebody stands with one limit."""

    rule: LimitRule
    left: int | None
    """For all processes together; ``None``: it cannot be known now."""


def save_limit(*, limit: Limit, principal: Principal, trace_id: str = "") -> None:
    """Store a new or changed limit.

    Raises:
        ValidationError: it would not be valid.
    """
    limit.full_clean()
    # By the row, not the object: a new one has its id already.
    outcome = "changed" if Limit.objects.filter(id=limit.id).exists() else "created"
    with transaction.atomic():
        limit.save()
        _record(limit, principal=principal, outcome=outcome, trace_id=trace_id)


def delete_limit(*, limit: Limit, principal: Principal, trace_id: str = "") -> None:
    """Take the limit away, with what was counted of it."""
    with transaction.atomic():
        _record(limit, principal=principal, outcome="deleted", trace_id=trace_id)
        limit.delete()


def _record(limit: Limit, *, principal: Principal, outcome: str, trace_id: str) -> None:
    audit.record_event(
        action="limits.change",
        principal=principal,
        resource=Resource(kind="limit", name=limit.name),
        outcome=outcome,
        trace_id=trace_id,
        data={
            "limit_id": str(limit.id),
            "is_enabled": limit.is_enabled,
            "scope": limit.scope,
            "subject": str(limit.account_id or limit.api_key_id or limit.role or ""),
            "counted": limit.counted,
            "pattern": limit.pattern,
            "amount": limit.amount,
            "period": limit.period,
            "burst": limit.burst,
        },
    )


def list_standings(*, account: Account) -> list[LimitStanding]:
    """What is left to the account of each limit that is about it or one of its keys, by name; the default's first."""
    default = _get_default_rule()
    roles = {role.name for role in account.roles.all()}
    keys: list[uuid.UUID] = list(account.api_keys.values_list("id", flat=True))
    found = [default] if default is not None else []
    found += [
        rule
        for rule in selectors.read_rules()
        if any(rule.is_about(account_id=account.id, roles=roles, api_key_id=key) for key in (None, *keys))
    ]
    buckets = RedisBuckets(url=settings.REDIS_URL)
    return [
        LimitStanding(rule=rule, left=_get_left(rule, rule.get_subject(account_id=account.id), buckets))
        for rule in found
    ]


def _get_default_rule() -> LimitRule | None:
    limiter = ports.get_limiter()
    return limiter.default_rule if isinstance(limiter, SharedLimiter) else None


def _get_left(rule: LimitRule, subject: str, buckets: RedisBuckets) -> int | None:
    if rule.period.is_quota:
        window_start = get_window_start(period=rule.period, now=timezone.now())
        return max(0, rule.amount - selectors.get_used(limit_id=rule.id, subject=subject, window_start=window_start))
    try:
        return buckets.look(rule=rule, subject=subject)
    except SourceUnavailable:
        return None


def purge_limit_usage() -> int:
    """Forget quotas' windows that are long over; how many."""
    before = timezone.now().date() - USAGE_KEPT
    old = LimitUsage.objects.filter(window_start__lt=before).values_list("id", flat=True)[:PURGE_LIMIT]
    deleted, _ = LimitUsage.objects.filter(id__in=list(old)).delete()
    return deleted

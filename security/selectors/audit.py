"""The audit record, filtered and searched."""

from __future__ import annotations

import heapq
import uuid
from datetime import datetime
from typing import Final

from django.db.models import Q, QuerySet

from security.models import Account, AuditEvent

MAX_FOUND: Final = 500
"""Audit events that a search finds; the newest."""
MAX_SEARCHED: Final = 10_000
"""Audit events, the newest, in whose names a search looks for a part."""
MAX_POSITION: Final = 2**63
_MAX_NAMES: Final = 10


def filter_audit_events_by_actor(events: QuerySet[AuditEvent], *, username: str) -> QuerySet[AuditEvent]:
    """Those of the events that the account brought about, under whatever name; it is named as it is now."""
    return events.filter(
        actor_id__in=list(Account.objects.filter(username__iexact=username).values_list("id", flat=True))
    )


def search_audit_events(events: QuerySet[AuditEvent], *, term: str) -> QuerySet[AuditEvent]:
    """Those of the events that the term names: by a trace, by a resource's name, by its position in the chain, or by an
    account with it in its name.

    Of the ``MAX_SEARCHED`` newest also those that have it in the resource's name, or in the account's as it was then.
    The newest ``MAX_FOUND`` at most. Each condition is asked for alone, as then an index answers it; of all of them
    together a database may choose to read every row.
    """
    accounts = Account.objects.filter(username__icontains=term).values_list("id", flat=True)[:_MAX_NAMES]
    conditions = [
        Q(trace_id=term.lower()),
        Q(resource_name=term),
        *(Q(actor_id=account_id) for account_id in accounts),
    ]
    named = Q(resource_name__icontains=term) | Q(actor_name__icontains=term)
    newest = AuditEvent.objects.order_by("-at", "-id").values_list("at", flat=True)
    oldest = next(iter(newest[MAX_SEARCHED - 1 : MAX_SEARCHED]), None)
    if term.isascii() and term.isdigit() and int(term) < MAX_POSITION:
        conditions.append(Q(seal__position=int(term)))
    conditions.append(named if oldest is None else named & Q(at__gte=oldest))
    found = {row for condition in conditions for row in _list_newest(events.filter(condition))}
    return events.filter(id__in=[event_id for _, event_id in heapq.nlargest(MAX_FOUND, found)])


def _list_newest(events: QuerySet[AuditEvent]) -> list[tuple[datetime, uuid.UUID]]:
    return list(events.order_by("-at", "-id").values_list("at", "id")[:MAX_FOUND])

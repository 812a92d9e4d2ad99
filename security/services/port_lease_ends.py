"""How leases of ports end: given back, drained, lapsed, or with the session or run that they were for.

An end makes a lease *draining*. It is *released*, and its port anybody's, once the port was found free on its own host;
a port that is not given up in time goes into quarantine instead. Every step is an update that names the states that it
comes from: of a renewal, a release and an expiry at once exactly one wins.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from protocol.errors import AccessDenied
from protocol.ports import Principal, Resource
from security import selectors
from security.domain.port_leases import (
    LIVE_STATES,
    EndReason,
    HolderKind,
    LeaseEvent,
    LeaseState,
    QuarantineReason,
    list_sources,
)
from security.models import PortLease, PortQuarantine
from security.selectors.port_leases import DRAIN_PORTS, LIFT_QUARANTINES, RELEASE_PORTS, get_port_resource
from security.selectors.port_probe import Finding, list_ports_in_use, probe_port
from security.services import audit

logger = logging.getLogger(__name__)

BATCH: Final = 200
"""Leases looked after in one call; the next call goes on."""
ABANDONED_AFTER: Final = timedelta(minutes=10)
"""How long a lease may drain whose own host does not look after it: nothing of that host may run any more."""
KEPT_FOR: Final = timedelta(days=7)
"""How long a released lease stays visible."""
KEY_LASTS: Final = timedelta(hours=24)
"""An idempotency key."""
ENDED: Final = [state.value for state in list_sources(LeaseEvent.ENDED)]
EXPIRE_PORTS: Final = "ports.expire"
QUARANTINE_PORTS: Final = "ports.quarantine"


def release_port_lease(*, principal: Principal, lease_id: uuid.UUID, trace_id: str) -> PortLease:
    """End the lease now; again, it changes nothing. The lease as it is then.

    Raises:
        LeaseNotFound: there is none that the principal may know of.
        AccessDenied: the principal may see it, and not release it.
    """
    lease = selectors.get_port_lease(principal=principal, lease_id=lease_id, action=RELEASE_PORTS)
    with transaction.atomic():
        # One that an operator drains ends by this too: its holder waits no longer.
        hurried = PortLease.objects.filter(
            id=lease.id, state=LeaseState.DRAINING.value, drain_until__gt=_get_drain_end()
        )
        if hurried.update(drain_until=_get_drain_end()):
            _record_end(lease, action=RELEASE_PORTS, reason=EndReason.RELEASED, principal=principal, trace_id=trace_id)
        else:
            _end(lease, reason=EndReason.RELEASED, action=RELEASE_PORTS, principal=principal, trace_id=trace_id)
    settle_port_leases(lease_ids=[lease.id])
    return PortLease.objects.select_related("account").get(id=lease.id)


def drain_port_lease(*, principal: Principal, lease_id: uuid.UUID, trace_id: str) -> bool:
    """Let the lease be renewed no more: it is released once its port is free, and that by its expiry at the latest.

    ``False`` where it had ended before.

    Raises:
        LeaseNotFound: there is none that the principal may know of.
        AccessDenied: the principal may see it, and not drain it.
    """
    lease = selectors.get_port_lease(principal=principal, lease_id=lease_id, action=DRAIN_PORTS)
    with transaction.atomic():
        is_ended = _end(
            lease,
            reason=EndReason.DRAINED,
            action=DRAIN_PORTS,
            principal=principal,
            trace_id=trace_id,
            drain_until=lease.expires_at + _get_drain_time(),
        )
    settle_port_leases(lease_ids=[lease.id])
    return is_ended


def end_session_leases(*, session_id: uuid.UUID) -> int:
    """End what the session held, inside the transaction that ends it; how many."""
    return _end_holders(kind=HolderKind.SESSION, holder_id=session_id, reason=EndReason.SESSION_ENDED, trace_id="")


def end_execution_leases(*, execution_id: uuid.UUID, trace_id: str) -> int:
    """End what the run held, inside the transaction that ends it or its attempt; how many."""
    return _end_holders(
        kind=HolderKind.EXECUTION, holder_id=execution_id, reason=EndReason.EXECUTION_ENDED, trace_id=trace_id
    )


def sweep_port_leases() -> int:
    """End what has lapsed, and look after what this host has; how many leases were changed."""
    return expire_port_leases() + settle_port_leases() + _release_abandoned()


def expire_port_leases() -> int:
    """End the leases whose time has passed, of every host; how many."""
    lapsed = Q(state__in=ENDED, expires_at__lte=Now())
    expired = 0
    for lease in PortLease.objects.filter(lapsed).order_by("expires_at")[:BATCH]:
        with transaction.atomic():
            # The condition again: it may just have been renewed.
            expired += _end(lease, reason=EndReason.EXPIRED, action=EXPIRE_PORTS, condition=lapsed)
    return expired


def settle_port_leases(*, lease_ids: Collection[uuid.UUID] | None = None) -> int:
    """Look at the ports of this host's leases, or of these of them, in no transaction; how many leases were changed.

    Ports in use make reserved leases active, ports left make draining ones released.
    """
    leases = PortLease.objects.filter(host=settings.NODE_NAME, state__in=[state.value for state in LIVE_STATES])
    if lease_ids is not None:
        leases = leases.filter(id__in=lease_ids)
    found = list(leases.filter(state__in=[LeaseState.RESERVED.value, LeaseState.DRAINING.value]).order_by("created_at"))
    in_use = list_ports_in_use() if any(lease.state == LeaseState.RESERVED for lease in found) else None
    changed = 0
    for lease in found:
        if lease.state == LeaseState.DRAINING:
            changed += _settle_draining(lease)
        # Where a look is not possible, whoever renews a lease is taken to use it.
        elif (in_use is None and lease_ids is not None) or (in_use is not None and lease.port in in_use):
            changed += _move(lease, LeaseEvent.SEEN_IN_USE, state=LeaseState.ACTIVE.value, active_at=Now())
    return changed


def quarantine_port(*, host: str, port: int, reason: QuarantineReason, found: str) -> None:
    """Give the port of the host to nobody for a time."""
    now = timezone.now()
    until = now + timedelta(seconds=settings.MCP.port_quarantine_seconds)
    found = found[:500]
    with transaction.atomic():
        PortQuarantine.objects.update_or_create(
            host=host,
            port=port,
            defaults={"reason": reason.value, "found": found, "created_at": now, "until": until},
        )
        audit.record_event(
            action=QUARANTINE_PORTS,
            resource=Resource(kind="port", name=str(port)),
            outcome=reason.value,
            data={"host": host, "found": found, "until": until.isoformat()},
        )
    logger.warning("Port %d of %s is in quarantine until %s: %s", port, host, until, found or reason.value)


def lift_quarantine(*, principal: Principal, quarantine: PortQuarantine, trace_id: str) -> bool:
    """Have the port leased again at once; ``False`` where it was in quarantine no more.

    Raises:
        AccessDenied: the principal may not do that.
    """
    if not selectors.may_lift_quarantine(principal=principal, port=quarantine.port):
        raise AccessDenied(details={"action": LIFT_QUARANTINES})
    with transaction.atomic():
        deleted, _ = PortQuarantine.objects.filter(id=quarantine.id).delete()
        if deleted:
            audit.record_event(
                action=LIFT_QUARANTINES,
                principal=principal,
                resource=Resource(kind="port", name=str(quarantine.port)),
                outcome="lifted",
                trace_id=trace_id,
                data={"host": quarantine.host, "found": quarantine.found},
            )
    return bool(deleted)


def purge_port_leases() -> int:
    """Forget leases that were released long ago, keys of yesterday and quarantines that are over; how many leases."""
    old = PortLease.objects.filter(released_at__lt=timezone.now() - KEPT_FOR).values_list("id", flat=True)
    total = 0
    while batch := list(old[:BATCH]):
        total += PortLease.objects.filter(id__in=batch).delete()[0]
    stale = PortLease.objects.exclude(idempotency_key="").filter(created_at__lt=timezone.now() - KEY_LASTS)
    stale.update(idempotency_key="")
    PortQuarantine.objects.filter(until__lte=Now()).delete()
    return total


def _end_holders(*, kind: HolderKind, holder_id: uuid.UUID, reason: EndReason, trace_id: str) -> int:
    held = PortLease.objects.filter(holder_id=holder_id, holder_kind=kind.value, released_at=None, state__in=ENDED)
    ended = [lease.id for lease in held if _end(lease, reason=reason, action=RELEASE_PORTS, trace_id=trace_id)]
    if ended:
        transaction.on_commit(partial(settle_port_leases, lease_ids=ended))
    return len(ended)


def _end(
    lease: PortLease,
    *,
    reason: EndReason,
    action: str,
    principal: Principal | None = None,
    trace_id: str = "",
    drain_until: datetime | None = None,
    condition: Q | None = None,
) -> bool:
    """End the lease inside the caller's transaction, with its event; ``False``: it had ended, or is not so."""
    ended_at = timezone.now()
    is_ended = _move(
        lease,
        LeaseEvent.ENDED,
        condition=condition,
        state=LeaseState.DRAINING.value,
        ended_at=ended_at,
        end_reason=reason.value,
        drain_until=drain_until or _get_drain_end(),
    )
    if is_ended:
        _record_end(lease, action=action, reason=reason, principal=principal, trace_id=trace_id)
    return is_ended


def _record_end(
    lease: PortLease, *, action: str, reason: EndReason, principal: Principal | None, trace_id: str
) -> None:
    audit.record_event(
        action=action,
        principal=principal,
        resource=get_port_resource(lease),
        outcome=reason.value,
        trace_id=trace_id,
        data={"lease_id": str(lease.id), "host": lease.host, "account_id": str(lease.account_id)},
    )


def _settle_draining(lease: PortLease) -> bool:
    probe = probe_port(lease.port)
    if probe.finding in (Finding.FREE, Finding.LINGERING):
        return _release(lease)
    if lease.drain_until is None or timezone.now() < lease.drain_until:
        return False
    with transaction.atomic():
        is_released = _release(lease)
        if is_released:
            quarantine_port(host=lease.host, port=lease.port, reason=QuarantineReason.STILL_HELD, found=probe.found)
    return is_released


def _release_abandoned() -> int:
    """Release what drains on hosts that no longer look after it: an allocation there would ask the system anyway."""
    abandoned = PortLease.objects.filter(
        state=LeaseState.DRAINING.value, drain_until__lt=timezone.now() - ABANDONED_AFTER
    ).exclude(host=settings.NODE_NAME)
    return sum(map(_release, abandoned[:BATCH]))


def _release(lease: PortLease) -> bool:
    return _move(lease, LeaseEvent.PORT_LEFT, state=LeaseState.RELEASED.value, released_at=timezone.now())


def _move(lease: PortLease, event: LeaseEvent, *, condition: Q | None = None, **values: Any) -> bool:
    """Change the lease as the event does, if it is in a state that the event leads out of."""
    sources = PortLease.objects.filter(id=lease.id, state__in=[state.value for state in list_sources(event)])
    return bool(sources.filter(condition or Q()).update(**values))


def _get_drain_time() -> timedelta:
    return timedelta(seconds=settings.MCP.port_drain_seconds)


def _get_drain_end() -> datetime:
    return timezone.now() + _get_drain_time()

"""Leases of ports as callers see them, who may do what with one, and which ports are taken."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final, Literal

from django.conf import settings
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from msgspec import Struct

from protocol import ports
from protocol.domain.cursors import Position, decode_cursor, encode_cursor
from protocol.errors import AccessDenied, LeaseNotFound, PortInvalid
from protocol.ports import Principal, Resource
from security.domain.actions import register_action
from security.domain.port_leases import LIVE_STATES, HolderKind, LeaseState
from security.domain.port_ranges import HIGHEST_PORT, LOWEST_PORT
from security.models import PortLease, PortQuarantine
from security.selectors.accounts import find_account_id
from security.selectors.port_probe import Finding, probe_port

ALLOCATE_PORTS: Final = register_action("ports.allocate", summary="Lease a port.")
RENEW_PORTS: Final = register_action("ports.renew", summary="Keep a leased port for longer.")
RELEASE_PORTS: Final = register_action("ports.release", summary="Give a leased port back.")
DRAIN_PORTS: Final = register_action("ports.drain", summary="Let a leased port go once nothing uses it.")
CHECK_PORTS: Final = register_action("ports.check", summary="See whether a port is free.")
LIST_PORTS: Final = register_action("ports.list", summary="See leased ports.")
LIFT_QUARANTINES: Final = register_action("ports.lift", summary="Let a port in quarantine be leased again.")
MAX_READS: Final = 5
"""How often a page's worth of rows is read for one page, where the principal may not see them all."""


class PortLeaseView(Struct, frozen=True, kw_only=True):
    """A lease as its holder, and whoever may see it, is told it."""

    lease_id: str
    host: str
    port: int
    state: str
    purpose: str
    owner: str
    holder_kind: str
    holder_id: str | None
    created_at: datetime
    expires_at: datetime
    active_at: datetime | None
    ended_at: datetime | None
    end_reason: str | None
    released_at: datetime | None


class PortLeasePage(Struct, frozen=True, kw_only=True):
    leases: list[PortLeaseView]
    next_cursor: str | None


class PortStatus(Struct, frozen=True, kw_only=True):
    """Whether a port of this node could be leased at that moment."""

    port: int
    host: str
    available: bool
    reason: Literal["not_leasable", "leased", "quarantined", "in_use", "forbidden"] | None
    """Why it could not."""
    lease: PortLeaseView | None
    """Who has it, for whoever may see that."""


class PortLeaseFilters(Struct, frozen=True, kw_only=True):
    """Which leases; empty: all."""

    states: tuple[LeaseState, ...] = ()
    port: int | None = None
    host: str | None = None
    owner: str | None = None
    """An account's name."""
    session_id: uuid.UUID | None = None


def get_port_resource(lease: PortLease) -> Resource:
    """What policy is asked about."""
    return Resource(kind="port", name=str(lease.port), owner_id=lease.account_id)


def may_act_on_lease(*, principal: Principal, action: str, lease: PortLease) -> bool:
    """Whether the principal may do that with the lease."""
    return ports.get_authorizer().is_allowed(principal=principal, action=action, resource=get_port_resource(lease))


def may_allocate_port(*, principal: Principal, port: int) -> bool:
    """Whether the principal may have the port, once it is its own."""
    resource = Resource(kind="port", name=str(port), owner_id=principal.id)
    return ports.get_authorizer().is_allowed(principal=principal, action=ALLOCATE_PORTS, resource=resource)


def may_lift_quarantine(*, principal: Principal, port: int) -> bool:
    """Whether the principal may have the port leased again before its quarantine is over."""
    resource = Resource(kind="port", name=str(port))
    return ports.get_authorizer().is_allowed(principal=principal, action=LIFT_QUARANTINES, resource=resource)


def get_port_lease(*, principal: Principal, lease_id: uuid.UUID, action: str) -> PortLease:
    """The lease, on which the principal may act so.

    Raises:
        LeaseNotFound: there is none, or the principal may not know of it.
        AccessDenied: it may see the lease, and not do that.
    """
    lease = PortLease.objects.select_related("account").filter(id=lease_id).first()
    if lease is not None and may_act_on_lease(principal=principal, action=action, lease=lease):
        return lease
    if lease is not None and may_act_on_lease(principal=principal, action=LIST_PORTS, lease=lease):
        raise AccessDenied(details={"action": action})
    raise LeaseNotFound(details={"lease_id": str(lease_id)}, denied_action="" if lease is None else action)


def check_port(*, principal: Principal, port: int) -> PortStatus:
    """Whether the principal could lease the port of this node now; a port that nobody holds is tried.

    Raises:
        PortInvalid: no port has that number.
        AccessDenied: the principal may not ask about it.
    """
    if not LOWEST_PORT <= port <= HIGHEST_PORT:
        raise PortInvalid(f"A port is a number from {LOWEST_PORT} to {HIGHEST_PORT}.")
    resource = Resource(kind="port", name=str(port), owner_id=principal.id)
    if not ports.get_authorizer().is_allowed(principal=principal, action=CHECK_PORTS, resource=resource):
        raise AccessDenied(details={"action": CHECK_PORTS, "port": port})
    host = settings.NODE_NAME
    lease = find_live_lease(host=host, port=port)
    is_seen = lease is not None and may_act_on_lease(principal=principal, action=LIST_PORTS, lease=lease)
    reason = _find_obstacle(host=host, port=port, lease=lease)
    return PortStatus(
        port=port,
        host=host,
        available=reason is None,
        reason=reason,
        lease=describe_lease(lease) if lease is not None and is_seen else None,
    )


def _find_obstacle(
    *, host: str, port: int, lease: PortLease | None
) -> Literal["not_leasable", "leased", "quarantined", "in_use", "forbidden"] | None:
    if lease is not None:
        # Not tried: that might be in the way of its holder.
        return "leased"
    if port not in settings.MCP.port_pool:
        return "not_leasable"
    if is_quarantined(host=host, port=port):
        return "quarantined"
    match probe_port(port).finding:
        case Finding.FREE:
            return None
        case Finding.FORBIDDEN:
            return "forbidden"
        case Finding.HELD | Finding.LINGERING:
            return "in_use"


def list_port_leases(
    *, principal: Principal, filters: PortLeaseFilters, cursor: str | None, limit: int
) -> PortLeasePage:
    """The leases that the principal may see, the newest first.

    Raises:
        InvalidArguments: the cursor is none of ours.
    """
    rows = _filter(_select_visible(principal), filters)
    after = None if cursor is None else decode_cursor(cursor)
    page: list[PortLeaseView] = []
    last: Position | None = None
    is_done = True
    for lease in _iterate(rows, after=after, size=limit + 1):
        if lease is None or len(page) == limit:
            is_done = False
            break
        last = Position(lease.created_at, lease.id)
        if may_act_on_lease(principal=principal, action=LIST_PORTS, lease=lease):
            page.append(describe_lease(lease))
    return PortLeasePage(leases=page, next_cursor=None if is_done or last is None else encode_cursor(last))


def describe_lease(lease: PortLease) -> PortLeaseView:
    """The lease for whoever may see it."""
    return PortLeaseView(
        lease_id=str(lease.id),
        host=lease.host,
        port=lease.port,
        state=lease.state,
        purpose=lease.purpose,
        owner=lease.account.get_username(),
        holder_kind=lease.holder_kind,
        holder_id=None if lease.holder_id is None else str(lease.holder_id),
        created_at=lease.created_at,
        expires_at=lease.expires_at,
        active_at=lease.active_at,
        ended_at=lease.ended_at,
        end_reason=lease.end_reason or None,
        released_at=lease.released_at,
    )


def find_live_lease(*, host: str, port: int) -> PortLease | None:
    """Who has the port of the host."""
    live = PortLease.objects.filter(host=host, port=port, state__in=[state.value for state in LIVE_STATES])
    return live.select_related("account").first()


def list_taken_ports(*, host: str) -> frozenset[int]:
    """The ports of the host that are leased or in quarantine."""
    live = PortLease.objects.filter(host=host, state__in=[state.value for state in LIVE_STATES])
    quarantined = PortQuarantine.objects.filter(host=host, until__gt=Now())
    return frozenset([*live.values_list("port", flat=True), *quarantined.values_list("port", flat=True)])


def list_recent_ports(*, host: str, since: timedelta) -> frozenset[int]:
    """The ports of the host that were given up within that time."""
    recent = PortLease.objects.filter(host=host, released_at__gt=Now() - since)
    return frozenset(recent.values_list("port", flat=True))


def is_quarantined(*, host: str, port: int) -> bool:
    """Whether the port of the host is given to nobody now."""
    return PortQuarantine.objects.filter(host=host, port=port, until__gt=Now()).exists()


def count_account_leases(*, account_id: uuid.UUID) -> int:
    """How many live leases count against the account's limit: all but those of its runs, which workers bound."""
    live = PortLease.objects.filter(account_id=account_id, state__in=[state.value for state in LIVE_STATES])
    return live.exclude(holder_kind=HolderKind.EXECUTION.value).count()


def _select_visible(principal: Principal) -> QuerySet[PortLease]:
    if ports.get_authorizer().reaches_others(principal=principal, action=LIST_PORTS, kind="port"):
        return PortLease.objects.all()
    return PortLease.objects.filter(account_id=principal.id)


def _filter(rows: QuerySet[PortLease], filters: PortLeaseFilters) -> QuerySet[PortLease]:
    if filters.owner is not None:
        account_id = find_account_id(username=filters.owner)
        rows = rows.none() if account_id is None else rows.filter(account_id=account_id)
    if filters.states:
        rows = rows.filter(state__in=[state.value for state in filters.states])
    if filters.port is not None:
        rows = rows.filter(port=filters.port)
    if filters.host is not None:
        rows = rows.filter(host=filters.host)
    if filters.session_id is not None:
        rows = rows.filter(holder_kind=HolderKind.SESSION.value, holder_id=filters.session_id)
    return rows


def _iterate(rows: QuerySet[PortLease], *, after: Position | None, size: int) -> Iterator[PortLease | None]:
    """The rows past the position; ``None`` where there are more than are looked at."""
    for _ in range(MAX_READS):
        past = rows
        if after is not None:
            at = after.created_at
            past = rows.filter(Q(created_at__lte=at) & (Q(created_at__lt=at) | Q(id__lt=after.id)))
        found = list(past.select_related("account").order_by("-created_at", "-id")[:size])
        yield from found
        if len(found) < size:
            return
        after = Position(found[-1].created_at, found[-1].id)
    yield None

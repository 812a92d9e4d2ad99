"""Giving out ports: a lease is recorded, and only then answered. Ending leases is ``port_lease_ends``'s.

A port is first tried with the operating system, outside any transaction, and then recorded; of two that record the same
one the unique constraint lets one through, and the other tries the next. The clock is the database's.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import msgspec
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from protocol import outbox, statements
from protocol.domain.messages import ResponsePayload
from protocol.errors import (
    AccessDenied,
    DuplicateId,
    InvalidArguments,
    LeaseNotFound,
    PortInvalid,
    PortUnavailable,
    Unavailable,
)
from protocol.failpoints import failpoint
from protocol.ports import Principal
from security import selectors
from security.domain.port_leases import HELD_STATES, HolderKind, QuarantineReason
from security.domain.port_ranges import iterate_candidates
from security.models import Account, PortLease
from security.selectors.port_leases import ALLOCATE_PORTS, RENEW_PORTS, get_port_resource
from security.selectors.port_probe import Finding, probe_port
from security.services import audit
from security.services.port_lease_ends import quarantine_port, settle_port_leases, sweep_port_leases

logger = logging.getLogger(__name__)

COMMAND: Final = "ports.allocate"
COOLING: Final = timedelta(seconds=60)
"""A port that was given up within this time is the last to be given again: its old clients may still knock."""
MAX_TRIED: Final = 32
"""Ports that one call finds kept by something else before it gives up; the next call goes on behind them."""
ENTROPY_BITS: Final = 64


class LeasedPort(msgspec.Struct, frozen=True, kw_only=True):
    """What whoever asked for a port is told."""

    port: int
    lease_id: str
    expires_at: datetime
    host: str
    """The node whose port it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRequest:
    """Everything that is known of a call for a port."""

    principal: Principal
    purpose: str
    port: int | None
    """``None``: any."""
    ttl_ms: int | None
    session_id: uuid.UUID | None
    message_id: str
    idempotency_key: str | None
    trace_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantedLease:
    leased: LeasedPort
    recorded: outbox.Appended | None = None
    """The answer, where it stands in the session's outbox."""
    is_duplicate: bool = False
    """It was given before, to the same call."""


Record = Callable[[PortLease], GrantedLease]
"""Writes the lease, inside the caller's transaction."""


def allocate_port(*, request: LeaseRequest) -> GrantedLease:
    """Lease a port of this node to the principal, for its session where it has one.

    Raises:
        PortInvalid: the server leases no such port.
        PortUnavailable: it is taken, none is free, or the account has as many as it may; ``details.reason`` says which.
        AccessDenied: the principal may have no such port.
        InvalidArguments: the time is longer than the settings allow.
        DuplicateId: the message's id or key was used for another request.
        Unavailable: the session has ended meanwhile.
    """
    lease = PortLease(
        host=settings.NODE_NAME,
        purpose=request.purpose,
        account_id=request.principal.id,
        holder_kind=(HolderKind.ACCOUNT if request.session_id is None else HolderKind.SESSION).value,
        holder_id=request.session_id,
        ttl_ms=choose_ttl_ms(request.ttl_ms),
        message_id="" if request.session_id is None else request.message_id,
        idempotency_key=request.idempotency_key or "",
        arguments_hash=hash_arguments(request),
    )
    earlier = find_earlier(lease)
    if earlier is not None:
        return repeat_grant(earlier=earlier, again=lease)
    check_requested_port(request)

    def may_have(port: int) -> bool:
        return selectors.may_allocate_port(principal=request.principal, port=port)

    record = partial(_record_for_account, request=request)
    try:
        return _lease_first(lease, wanted=request.port, may_have=may_have, record=record)
    except PortUnavailable:
        # The port that was asked for is allowed, or it had been refused.
        if request.port is None and not any(map(may_have, settings.MCP.port_pool)):
            raise AccessDenied(details={"action": ALLOCATE_PORTS}) from None
        raise


def lease_port_for_execution(
    *, account_id: uuid.UUID, execution_id: uuid.UUID, purpose: str, ttl: timedelta, trace_id: str
) -> LeasedPort:
    """Lease a port of this node for a run; whoever may run the tool may have it, beside its account's limit.

    Raises:
        PortUnavailable: none is free.
    """
    lease = PortLease(
        host=settings.NODE_NAME,
        purpose=purpose,
        account_id=account_id,
        holder_kind=HolderKind.EXECUTION.value,
        holder_id=execution_id,
        ttl_ms=max(1, ttl // timedelta(milliseconds=1)),
        arguments_hash="",
    )
    record = partial(_record_for_execution, trace_id=trace_id)
    return _lease_first(lease, wanted=None, may_have=lambda _: True, record=record).leased


def renew_port_lease(*, principal: Principal, lease_id: uuid.UUID, ttl_ms: int | None, trace_id: str) -> PortLease:
    """Let the lease last from now for that time, or the one that it was allocated with.

    Raises:
        LeaseNotFound: there is none that the principal may know of, or it has ended; its time alone ends it too.
        AccessDenied: the principal may see it, and not renew it.
        InvalidArguments: the time is longer than the settings allow.
    """
    lease = selectors.get_port_lease(principal=principal, lease_id=lease_id, action=RENEW_PORTS)
    ttl_ms = lease.ttl_ms if ttl_ms is None else choose_ttl_ms(ttl_ms)
    with transaction.atomic():
        expires_at = read_clock() + timedelta(milliseconds=ttl_ms)
        held = PortLease.objects.filter(
            id=lease.id, state__in=[state.value for state in HELD_STATES], expires_at__gt=Now()
        )
        if not held.update(expires_at=expires_at):
            raise LeaseNotFound("The lease has ended.", details={"lease_id": str(lease_id)})
        audit.record_event(
            action=RENEW_PORTS,
            principal=principal,
            resource=get_port_resource(lease),
            outcome="renewed",
            trace_id=trace_id,
            data={"lease_id": str(lease.id), "host": lease.host, "expires_at": expires_at.isoformat()},
        )
    settle_port_leases(lease_ids=[lease.id])
    return PortLease.objects.select_related("account").get(id=lease.id)


def choose_ttl_ms(ttl_ms: int | None) -> int:
    """The time that was asked for, or the default.

    Raises:
        InvalidArguments: it is longer than the settings allow.
    """
    if ttl_ms is None:
        return int(settings.MCP.port_lease_seconds * 1000)
    limit_ms = int(settings.MCP.max_port_lease_seconds * 1000)
    if ttl_ms > limit_ms:
        raise InvalidArguments(
            f"A lease lasts at most {limit_ms} ms; renew it.", details={"path": "arguments.ttl_ms", "limit": limit_ms}
        )
    return ttl_ms


def check_requested_port(request: LeaseRequest) -> None:
    """Refuse a port that the server does not lease, or not to this principal.

    Raises:
        PortInvalid: as above.
        AccessDenied: as above.
    """
    if request.port is None:
        return
    pool = settings.MCP.port_pool
    if request.port not in pool:
        raise PortInvalid(details={"ranges": [str(each) for each in pool.ranges]})
    if not selectors.may_allocate_port(principal=request.principal, port=request.port):
        raise AccessDenied(details={"action": ALLOCATE_PORTS, "port": request.port})


def hash_arguments(request: LeaseRequest) -> str:
    """What makes a call the same call."""
    arguments = msgspec.json.encode([request.purpose, request.port, request.ttl_ms])
    return hashlib.sha256(arguments).hexdigest()


def find_earlier(lease: PortLease) -> PortLease | None:
    """The lease that has this one's message id in its session, or its account's key."""
    same = Q(pk=None)
    if lease.message_id:
        same |= Q(holder_id=lease.holder_id, message_id=lease.message_id)
    if lease.idempotency_key:
        same |= Q(account_id=lease.account_id, idempotency_key=lease.idempotency_key)
    if not (lease.message_id or lease.idempotency_key):
        return None
    return PortLease.objects.filter(same).order_by("created_at").first()


def repeat_grant(*, earlier: PortLease, again: PortLease) -> GrantedLease:
    """The first answer again, whatever became of the lease.

    Raises:
        DuplicateId: the arguments are others.
    """
    if earlier.arguments_hash != again.arguments_hash or earlier.account_id != again.account_id:
        raise DuplicateId
    return GrantedLease(leased=_describe(earlier, expires_at=earlier.created_at + earlier.ttl), is_duplicate=True)


def read_clock() -> datetime:
    """The database's time: nodes whose clocks differ agree on it when a lease ends."""
    now: datetime | None = Account.objects.order_by().values_list(Now(), flat=True).first()
    assert now is not None  # noqa: S101  # whoever asks has an account
    return now


def _lease_first(
    lease: PortLease, *, wanted: int | None, may_have: Callable[[int], bool], record: Record
) -> GrantedLease:
    try:
        return _try_candidates(lease, filter(may_have, _choose_candidates(lease, wanted)), record)
    except PortUnavailable:
        # What has lapsed and nobody swept yet may be what is missing.
        if not sweep_port_leases():
            raise
    return _try_candidates(lease, filter(may_have, _choose_candidates(lease, wanted)), record)


def _choose_candidates(lease: PortLease, wanted: int | None) -> Iterator[int]:
    taken = selectors.list_taken_ports(host=lease.host)
    if wanted is not None:
        return iter(() if wanted in taken else (wanted,))
    return iterate_candidates(
        pool=settings.MCP.port_pool,
        entropy=secrets.randbits(ENTROPY_BITS),
        excluded=taken,
        last=selectors.list_recent_ports(host=lease.host, since=COOLING),
    )


def _try_candidates(lease: PortLease, candidates: Iterable[int], record: Record) -> GrantedLease:
    """Lease the first that is free and that nobody else takes meanwhile."""
    kept = 0
    for port in candidates:
        if kept == MAX_TRIED:
            break
        probe = probe_port(port)
        match probe.finding:
            case Finding.HELD | Finding.FORBIDDEN:
                kept += 1
                reason = QuarantineReason.HELD if probe.finding is Finding.HELD else QuarantineReason.FORBIDDEN
                quarantine_port(host=lease.host, port=port, reason=reason, found=probe.found)
            case Finding.FREE:
                lease.port = port
                granted = _try_to_record(lease, record)
                if granted is not None:
                    return granted
            case Finding.LINGERING:
                continue
    raise PortUnavailable(details={"reason": "none_free"})


def _try_to_record(lease: PortLease, record: Record) -> GrantedLease | None:
    """``None`` where somebody else was faster with the port."""
    try:
        with transaction.atomic():
            granted = record(lease)
            failpoint("lease.before_commit")
    except IntegrityError:
        earlier = find_earlier(lease)
        return None if earlier is None else repeat_grant(earlier=earlier, again=lease)
    failpoint("lease.after_commit")
    return granted


def _record_for_account(lease: PortLease, *, request: LeaseRequest) -> GrantedLease:
    # The account's row orders its allocations, so that many at once do not pass its limit.
    Account.objects.filter(id=lease.account_id).update(created_at=F("created_at"))
    limit = settings.MCP.port_leases_per_account
    if selectors.count_account_leases(account_id=request.principal.id) >= limit:
        raise PortUnavailable(
            f"The account holds {limit} ports, as many as it may.", details={"reason": "account_limit", "limit": limit}
        )
    leased = _insert(lease, principal=request.principal, trace_id=request.trace_id)
    if request.session_id is None:
        return GrantedLease(leased=leased)
    recorded = outbox.append(
        session_id=request.session_id,
        correlation_id=request.message_id,
        payload=ResponsePayload(COMMAND, msgspec.to_builtins(leased)),
    )
    if recorded is None:
        # Nobody would ever give the port back; what is raised undoes the lease.
        raise Unavailable("The session has ended.")
    return GrantedLease(leased=leased, recorded=recorded)


def _record_for_execution(lease: PortLease, *, trace_id: str) -> GrantedLease:
    return GrantedLease(leased=_insert(lease, principal=None, trace_id=trace_id))


def _insert(lease: PortLease, *, principal: Principal | None, trace_id: str) -> LeasedPort:
    lease.created_at = read_clock()
    lease.expires_at = lease.created_at + lease.ttl
    statements.insert(lease)
    audit.record_event(
        action=ALLOCATE_PORTS,
        principal=principal,
        resource=get_port_resource(lease),
        outcome="leased",
        trace_id=trace_id,
        data={
            "lease_id": str(lease.id),
            "host": lease.host,
            "account_id": str(lease.account_id),
            "purpose": lease.purpose,
            "holder_kind": lease.holder_kind,
            "holder_id": None if lease.holder_id is None else str(lease.holder_id),
            "expires_at": lease.expires_at.isoformat(),
        },
    )
    return _describe(lease, expires_at=lease.expires_at)


def _describe(lease: PortLease, *, expires_at: datetime) -> LeasedPort:
    return LeasedPort(port=lease.port, lease_id=str(lease.id), expires_at=expires_at, host=lease.host)

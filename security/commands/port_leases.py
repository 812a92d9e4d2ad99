"""The protocol's commands about leases of ports (protocol.md section 6)."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from protocol.domain.messages import ResponsePayload
from protocol.registry import CommandContext, Recorded, Stored, command
from security import selectors, services
from security.domain.port_leases import LeaseState
from security.domain.port_ranges import HIGHEST_PORT, LOWEST_PORT
from security.models import MAX_HOST_LENGTH, MAX_PURPOSE_LENGTH
from security.selectors import PortLeasePage, PortLeaseView, PortStatus
from security.selectors.port_leases import ALLOCATE_PORTS, CHECK_PORTS, LIST_PORTS, RELEASE_PORTS, RENEW_PORTS
from security.services import LeasedPort

MIN_TTL_MS = 1_000

TtlMs = Annotated[int, Meta(ge=MIN_TTL_MS)]
LeaseId = Annotated[uuid.UUID, Meta(description="As `ports.allocate` answered it.")]


class AllocateArguments(Struct, frozen=True, forbid_unknown_fields=True):
    purpose: Annotated[
        str, Meta(min_length=1, max_length=MAX_PURPOSE_LENGTH, description="What it is for, for people.")
    ]
    port: Annotated[int | None, Meta(description="This one; without it any.")] = None
    ttl_ms: Annotated[TtlMs | None, Meta(description="How long it lasts; without it the server's default.")] = None


class RenewArguments(Struct, frozen=True, forbid_unknown_fields=True):
    lease_id: LeaseId
    ttl_ms: Annotated[
        TtlMs | None, Meta(description="How long it lasts from now; without it as long as it was allocated for.")
    ] = None


class ReleaseArguments(Struct, frozen=True, forbid_unknown_fields=True):
    lease_id: LeaseId


class CheckArguments(Struct, frozen=True, forbid_unknown_fields=True):
    port: int


class ListArguments(Struct, frozen=True, forbid_unknown_fields=True):
    state: Annotated[
        tuple[LeaseState, ...],
        Meta(max_length=len(LeaseState), description="Leases in one of these states; none: in any."),
    ] = ()
    port: Annotated[Annotated[int, Meta(ge=LOWEST_PORT, le=HIGHEST_PORT)] | None, Meta(description="Of this port.")] = (
        None
    )
    host: Annotated[
        Annotated[str, Meta(max_length=MAX_HOST_LENGTH)] | None, Meta(description="Of this node's ports.")
    ] = None
    owner: Annotated[
        Annotated[str, Meta(max_length=150)] | None, Meta(description="Leases of the account of this name.")
    ] = None
    session: Annotated[uuid.UUID | None, Meta(description="Leases that this session holds.")] = None
    cursor: Annotated[
        Annotated[str, Meta(max_length=200)] | None, Meta(description="The `next_cursor` of the page before.")
    ] = None
    limit: Annotated[int, Meta(ge=1, le=200, description="Of a page.")] = 50


@command("ports.allocate", action=ALLOCATE_PORTS, changes=True)
def allocate_port(context: CommandContext, arguments: AllocateArguments) -> LeasedPort | Recorded | Stored:
    """Lease a port of the server's machine; it ends with the session, its time or its release."""
    request = services.LeaseRequest(
        principal=context.principal,
        purpose=arguments.purpose,
        port=arguments.port,
        ttl_ms=arguments.ttl_ms,
        session_id=context.peer.session_id,
        message_id=context.message_id,
        idempotency_key=context.idempotency_key,
        trace_id=context.trace_id,
    )
    granted = services.allocate_port(request=request)
    if granted.is_duplicate:
        result: Any = msgspec.to_builtins(granted.leased)
        return Stored(payload=ResponsePayload("ports.allocate", result, True))  # noqa: FBT003  # the payload's third field
    if granted.recorded is not None:
        return Recorded(sequence=granted.recorded.entry.sequence, payload=granted.recorded.entry.payload)
    return granted.leased


@command("ports.renew", action=RENEW_PORTS, changes=True)
def renew_port(context: CommandContext, arguments: RenewArguments) -> PortLeaseView:
    """Let a lease last longer."""
    lease = services.renew_port_lease(
        principal=context.principal,
        lease_id=arguments.lease_id,
        ttl_ms=arguments.ttl_ms,
        trace_id=context.trace_id,
    )
    return selectors.describe_lease(lease)


@command("ports.release", action=RELEASE_PORTS, changes=True)
def release_port(context: CommandContext, arguments: ReleaseArguments) -> PortLeaseView:
    """End a lease; its port is free for others once nothing uses it any more."""
    lease = services.release_port_lease(
        principal=context.principal, lease_id=arguments.lease_id, trace_id=context.trace_id
    )
    return selectors.describe_lease(lease)


@command("ports.check", action=CHECK_PORTS)
def check_port(context: CommandContext, arguments: CheckArguments) -> PortStatus:
    """Whether a port of the server's machine could be leased now."""
    return selectors.check_port(principal=context.principal, port=arguments.port)


@command("ports.list", action=LIST_PORTS)
def list_ports(context: CommandContext, arguments: ListArguments) -> PortLeasePage:
    """The leases that the caller may see, the newest first, in pages; a page may be short and have a next one."""
    return selectors.list_port_leases(
        principal=context.principal,
        filters=selectors.PortLeaseFilters(
            states=arguments.state,
            port=arguments.port,
            host=arguments.host,
            owner=arguments.owner,
            session_id=arguments.session,
        ),
        cursor=arguments.cursor,
        limit=arguments.limit,
    )

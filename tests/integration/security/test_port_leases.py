"""Leases of ports by the services: given once, tried with the operating system, ended by whatever ends them."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from protocol import sessions
from protocol.domain.messages import ClientInfo
from protocol.errors import (
    AccessDenied,
    DuplicateId,
    InvalidArguments,
    LeaseNotFound,
    MCPError,
    PortInvalid,
    PortUnavailable,
    Unavailable,
)
from protocol.models import OutboxMessage, Session
from security import selectors, services
from security.domain.authorization import AccountPrincipal
from security.models import Account, AuditEvent, PortLease, PortQuarantine
from security.selectors import PortLeaseFilters, get_account_principal
from security.services import GrantedLease, LeaseRequest
from tests.factories import allow, create_operator, create_person, create_role, create_service, deny
from tests.ports import choose_range, hold_port, set_ports
from tests.threads import run_at_once

pytestmark = pytest.mark.django_db(transaction=True)

FIRST, LAST = choose_range()
LINGERING = LAST + 1
"""Of which the system does not forget connections for a minute."""
LIVE = ("reserved", "active", "draining")


@pytest.fixture(autouse=True)
def _ranges(settings: Any) -> None:
    set_ports(settings, port_ranges=(f"{FIRST}-{LAST}",), port_leases_per_account=60)


@pytest.fixture
def agent() -> AccountPrincipal:
    return make_principal(create_service())


def make_principal(account: Account) -> AccountPrincipal:
    return get_account_principal(account=account)


def allocate(principal: AccountPrincipal, **fields: Any) -> GrantedLease:
    given: dict[str, Any] = {
        "purpose": "tests",
        "port": None,
        "ttl_ms": None,
        "session_id": None,
        "message_id": uuid.uuid4().hex,
        "idempotency_key": None,
        "trace_id": uuid.uuid4().hex,
        **fields,
    }
    return services.allocate_port(request=LeaseRequest(principal=principal, **given))


def get_lease(granted: GrantedLease) -> PortLease:
    return PortLease.objects.get(id=granted.leased.lease_id)


def release(principal: AccountPrincipal, lease: PortLease) -> PortLease:
    return services.release_port_lease(principal=principal, lease_id=lease.id, trace_id="t")


def lapse(lease: PortLease) -> None:
    """Let the lease's time have passed."""
    PortLease.objects.filter(id=lease.id).update(
        created_at=timezone.now() - timedelta(hours=2), expires_at=timezone.now() - timedelta(seconds=1)
    )


def end_patience(lease: PortLease) -> None:
    """Let the time to drain have passed."""
    PortLease.objects.filter(id=lease.id).update(drain_until=timezone.now() - timedelta(seconds=1))


def open_session(principal: AccountPrincipal) -> uuid.UUID:
    client = ClientInfo(name="tests")
    return sessions.open_session(principal=principal, channel="c", client=client, remote_address=None).id


def list_audited(action: str) -> list[str]:
    return list(AuditEvent.objects.filter(action=action).order_by("at").values_list("outcome", flat=True))


# Allocating


def test_a_port_is_leased_from_the_ranges_and_audited(agent: AccountPrincipal) -> None:
    granted = allocate(agent, purpose="preview", ttl_ms=5_000)
    lease = get_lease(granted)
    assert FIRST <= granted.leased.port <= LAST
    assert (lease.port, lease.state, lease.purpose) == (granted.leased.port, "reserved", "preview")
    assert lease.expires_at - lease.created_at == timedelta(seconds=5)
    event = AuditEvent.objects.get(action="ports.allocate")
    assert (event.actor_id, event.resource_name, event.outcome) == (agent.id, str(lease.port), "leased")


def test_fifty_at_once_never_get_one_port_twice(agent: AccountPrincipal) -> None:
    granted = run_at_once(lambda: allocate(agent), times=50)
    assert len({each.leased.port for each in granted}) == 50
    assert PortLease.objects.filter(state__in=LIVE).values("host", "port").distinct().count() == 50


def test_fifty_accounts_at_once_never_get_one_port_twice_where_there_are_too_few(settings: Any) -> None:
    set_ports(settings, port_ranges=(f"{FIRST}-{FIRST + 29}",))
    waiting = [make_principal(create_service()) for _ in range(50)]

    def call() -> int | None:
        try:
            return allocate(waiting.pop()).leased.port
        except PortUnavailable:
            return None

    ports = run_at_once(call, times=50)
    given = [port for port in ports if port is not None]
    assert sorted(given) == list(range(FIRST, FIRST + 30))
    assert not PortQuarantine.objects.exists()


def test_the_wanted_port_at_once_is_given_once(agent: AccountPrincipal) -> None:
    def call() -> str:
        try:
            return str(allocate(agent, port=FIRST).leased.port)
        except PortUnavailable as error:
            return error.code

    assert sorted(run_at_once(call, times=12)) == [str(FIRST)] + ["transport.port_unavailable"] * 11


def test_the_limit_of_an_account_holds_for_many_at_once(settings: Any, agent: AccountPrincipal) -> None:
    set_ports(settings, port_leases_per_account=5)

    def call() -> str:
        try:
            allocate(agent)
        except PortUnavailable as error:
            return str(error.details["reason"])
        return "leased"

    assert sorted(run_at_once(call, times=20)) == ["account_limit"] * 15 + ["leased"] * 5
    # Another account's is another limit.
    assert get_lease(allocate(make_principal(create_service()))).state == "reserved"


def test_the_database_itself_refuses_a_second_live_lease(agent: AccountPrincipal) -> None:
    lease = get_lease(allocate(agent))
    lease.pk = uuid.uuid4()
    with pytest.raises(IntegrityError), transaction.atomic():
        lease.save(force_insert=True)
    lease.host = "another-node"
    lease.save(force_insert=True)


@pytest.mark.parametrize("port", [0, -1, 80, 1023, 11_999, 65_535, 65_536, 2**80])
def test_a_port_beyond_the_ranges_is_invalid(agent: AccountPrincipal, port: int) -> None:
    with pytest.raises(PortInvalid):
        allocate(agent, port=port)


def test_reserved_ports_and_the_servers_own_are_never_given(settings: Any, agent: AccountPrincipal) -> None:
    set_ports(settings, port=FIRST, reserved_ports=(f"{FIRST + 1}-{LAST - 1}",))
    for port in (FIRST, FIRST + 1):
        with pytest.raises(PortInvalid):
            allocate(agent, port=port)
    assert allocate(agent).leased.port == LAST
    with pytest.raises(PortUnavailable):
        allocate(agent)


def test_a_lease_is_no_longer_than_the_settings_allow(settings: Any, agent: AccountPrincipal) -> None:
    set_ports(settings, max_port_lease_seconds=60, port_lease_seconds=30)
    for ttl_ms in (60_001, 2**70):
        with pytest.raises(InvalidArguments):
            allocate(agent, ttl_ms=ttl_ms)
    lease = get_lease(allocate(agent))
    assert lease.ttl_ms == 30_000
    with pytest.raises(InvalidArguments):
        services.renew_port_lease(principal=agent, lease_id=lease.id, ttl_ms=60_001, trace_id="t")


def test_a_port_that_was_just_given_up_is_the_last_to_be_given(settings: Any, agent: AccountPrincipal) -> None:
    set_ports(settings, port_ranges=(f"{FIRST}-{FIRST + 3}",))
    first = get_lease(allocate(agent))
    assert release(agent, first).state == "released"
    ports = [allocate(agent).leased.port for _ in range(4)]
    assert ports.index(first.port) == 3


# The operating system


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("127.0.0.1", socket.SOCK_STREAM),
        ("0.0.0.0", socket.SOCK_STREAM),  # noqa: S104  # what is tested
        ("::1", socket.SOCK_STREAM),
        ("::", socket.SOCK_STREAM),
        ("127.0.0.1", socket.SOCK_DGRAM),
        ("::", socket.SOCK_DGRAM),
    ],
)
def test_what_something_else_holds_is_in_quarantine_and_another_is_given(
    settings: Any, agent: AccountPrincipal, host: str, kind: socket.SocketKind
) -> None:
    set_ports(settings, port_ranges=(f"{FIRST}-{FIRST + 1}",))
    with hold_port(FIRST, host=host, kind=kind):
        assert allocate(agent).leased.port == FIRST + 1
        with pytest.raises(PortUnavailable) as refused:
            allocate(agent, port=FIRST)
    assert refused.value.retryable
    quarantine = PortQuarantine.objects.get()
    assert (quarantine.port, quarantine.reason) == (FIRST, "held")
    assert host in quarantine.found
    assert list_audited("ports.quarantine") == ["held"]
    # Free by now, and still in quarantine.
    with pytest.raises(PortUnavailable):
        allocate(agent, port=FIRST)
    PortQuarantine.objects.update(until=timezone.now())
    assert allocate(agent, port=FIRST).leased.port == FIRST


def test_connections_that_linger_are_no_holder(settings: Any, agent: AccountPrincipal) -> None:
    set_ports(settings, port_ranges=(str(LINGERING),))
    with hold_port(LINGERING) as server:
        client = socket.create_connection(("127.0.0.1", LINGERING))
        accepted, _ = server.accept()
        # The side that closes first keeps the connection in TIME_WAIT.
        accepted.close()
        client.close()
    with pytest.raises(PortUnavailable):
        allocate(agent)
    assert not PortQuarantine.objects.exists()


def test_a_lease_is_active_once_its_port_was_seen_in_use(agent: AccountPrincipal) -> None:
    lease = get_lease(allocate(agent))
    services.sweep_port_leases()
    lease.refresh_from_db()
    assert lease.state == "reserved"
    with hold_port(lease.port):
        services.sweep_port_leases()
    lease.refresh_from_db()
    assert lease.state == "active"
    assert lease.active_at is not None
    # It stays so: a holder may restart its server.
    services.sweep_port_leases()
    lease.refresh_from_db()
    assert lease.state == "active"


def test_a_renewal_sees_it_too(agent: AccountPrincipal) -> None:
    lease = get_lease(allocate(agent, ttl_ms=1_000))
    with hold_port(lease.port):
        renewed = services.renew_port_lease(principal=agent, lease_id=lease.id, ttl_ms=60_000, trace_id="t")
    assert renewed.state == "active"
    assert renewed.expires_at > lease.expires_at + timedelta(seconds=50)


# Ends


def test_a_released_port_that_is_free_is_anybodys_at_once(agent: AccountPrincipal) -> None:
    lease = get_lease(allocate(agent))
    assert release(agent, lease).state == "released"
    assert release(agent, lease).state == "released"
    assert list_audited("ports.release") == ["released"]
    assert allocate(make_principal(create_service()), port=lease.port).leased.port == lease.port


def test_a_released_port_in_use_drains_and_goes_into_quarantine(agent: AccountPrincipal) -> None:
    lease = get_lease(allocate(agent))
    with hold_port(lease.port):
        assert release(agent, lease).state == "draining"
        with pytest.raises(PortUnavailable):
            allocate(agent, port=lease.port)
        services.sweep_port_leases()
        lease.refresh_from_db()
        assert lease.state == "draining"
        end_patience(lease)
        services.sweep_port_leases()
        lease.refresh_from_db()
        assert lease.state == "released"
        assert PortQuarantine.objects.get(port=lease.port).reason == "still_held"
        with pytest.raises(PortUnavailable):
            allocate(agent, port=lease.port)


def test_a_draining_port_that_is_left_is_released(agent: AccountPrincipal) -> None:
    lease = get_lease(allocate(agent))
    with hold_port(lease.port):
        release(agent, lease)
    services.sweep_port_leases()
    lease.refresh_from_db()
    assert lease.state == "released"
    assert not PortQuarantine.objects.exists()


def test_a_lease_ends_with_its_time(agent: AccountPrincipal) -> None:
    lease = get_lease(allocate(agent))
    services.sweep_port_leases()
    lapse(lease)
    with pytest.raises(LeaseNotFound):
        services.renew_port_lease(principal=agent, lease_id=lease.id, ttl_ms=None, trace_id="t")
    services.sweep_port_leases()
    lease.refresh_from_db()
    assert (lease.state, lease.end_reason) == ("released", "expired")
    assert list_audited("ports.expire") == ["expired"]


def test_who_wants_a_lapsed_port_need_not_wait_for_the_sweep(settings: Any, agent: AccountPrincipal) -> None:
    set_ports(settings, port_ranges=(str(FIRST),))
    lapse(get_lease(allocate(agent)))
    assert allocate(make_principal(create_service())).leased.port == FIRST


def test_of_a_renewal_and_an_expiry_at_once_one_wins(agent: AccountPrincipal) -> None:
    leases = [get_lease(allocate(agent)) for _ in range(4)]
    for lease in leases:
        lapse(lease)
    turns: list[Callable[[], object]] = [services.sweep_port_leases] * 4
    turns += [lambda lease=lease: release(agent, lease) for lease in leases]  # type: ignore[misc]  # bound at once
    turns += [
        lambda lease=lease: services.renew_port_lease(principal=agent, lease_id=lease.id, ttl_ms=None, trace_id="t")  # type: ignore[misc]  # bound at once
        for lease in leases
    ]

    def call() -> str | None:
        try:
            turns.pop()()
        except MCPError as error:
            return error.code
        return None

    assert set(run_at_once(call, times=len(turns))) <= {None, "transport.lease_not_found"}
    services.sweep_port_leases()
    assert set(PortLease.objects.values_list("state", flat=True)) == {"released"}
    assert len(list_audited("ports.expire")) + len(list_audited("ports.release")) == 4


def test_a_lease_ends_with_its_session(agent: AccountPrincipal) -> None:
    session_id = open_session(agent)
    mine, other = (get_lease(allocate(agent, session_id=session)) for session in (session_id, None))
    assert sessions.end_session(session_id=session_id, close_code=None)
    mine.refresh_from_db()
    other.refresh_from_db()
    assert (mine.state, mine.end_reason) == ("released", "session_ended")
    assert other.state == "reserved"


def test_a_lease_ends_with_a_session_whose_process_is_gone(agent: AccountPrincipal) -> None:
    session_id = open_session(agent)
    lease = get_lease(allocate(agent, session_id=session_id))
    Session.objects.filter(id=session_id).update(seen_at=timezone.now() - timedelta(minutes=5))
    sessions.expire_sessions()
    lease.refresh_from_db()
    assert lease.end_reason == "session_ended"


def test_a_session_that_has_ended_gets_nothing(agent: AccountPrincipal) -> None:
    session_id = open_session(agent)
    sessions.end_session(session_id=session_id, close_code=None)
    with pytest.raises(Unavailable):
        allocate(agent, session_id=session_id)
    assert not PortLease.objects.exists()
    assert not list_audited("ports.allocate")


def test_an_operator_drains_and_releases(agent: AccountPrincipal) -> None:
    operator = make_principal(create_operator())
    lease = get_lease(allocate(agent))
    with hold_port(lease.port):
        assert services.drain_port_lease(principal=operator, lease_id=lease.id, trace_id="t")
        lease.refresh_from_db()
        assert (lease.state, lease.end_reason) == ("draining", "drained")
        assert lease.drain_until is not None
        assert lease.drain_until >= lease.expires_at
        with pytest.raises(LeaseNotFound):
            services.renew_port_lease(principal=agent, lease_id=lease.id, ttl_ms=None, trace_id="t")
        assert not services.drain_port_lease(principal=operator, lease_id=lease.id, trace_id="t")
        release(operator, lease)
        lease.refresh_from_db()
        assert lease.drain_until is not None
        assert lease.drain_until < lease.expires_at
    services.sweep_port_leases()
    lease.refresh_from_db()
    assert lease.state == "released"


def test_a_host_that_is_gone_keeps_nothing_for_ever(agent: AccountPrincipal) -> None:
    lease = get_lease(allocate(agent))
    PortLease.objects.update(host="another-node")
    assert release(agent, lease).state == "draining"
    services.sweep_port_leases()
    lease.refresh_from_db()
    assert lease.state == "draining"
    PortLease.objects.update(drain_until=timezone.now() - timedelta(hours=1))
    services.sweep_port_leases()
    lease.refresh_from_db()
    assert lease.state == "released"


def test_what_was_released_long_ago_is_forgotten(agent: AccountPrincipal) -> None:
    old, new, held = (get_lease(allocate(agent, idempotency_key=key)) for key in ("a", "b", "c"))
    for lease in (old, new):
        release(agent, lease)
    PortLease.objects.filter(id=old.id).update(released_at=timezone.now() - timedelta(days=8))
    PortLease.objects.filter(id=held.id).update(created_at=timezone.now() - timedelta(hours=25))
    assert services.purge_port_leases() == 1
    assert set(PortLease.objects.values_list("id", "idempotency_key")) == {(new.id, "b"), (held.id, "")}


# The same call again


def test_the_same_call_is_one_lease_also_for_eight_at_once(agent: AccountPrincipal) -> None:
    granted = run_at_once(lambda: allocate(agent, idempotency_key="k", ttl_ms=9_000), times=8)
    assert len({(each.leased.lease_id, each.leased.expires_at) for each in granted}) == 1
    assert sum(each.is_duplicate for each in granted) == 7
    assert PortLease.objects.count() == 1
    with pytest.raises(DuplicateId):
        allocate(agent, idempotency_key="k", ttl_ms=8_000)
    assert not allocate(make_principal(create_service()), idempotency_key="k").is_duplicate


def test_the_answer_is_in_the_sessions_outbox_with_the_lease(agent: AccountPrincipal) -> None:
    session_id = open_session(agent)
    granted = allocate(agent, session_id=session_id, message_id="m-1")
    message = OutboxMessage.objects.get(session_id=session_id)
    assert granted.recorded is not None
    assert (message.correlation_id, message.sequence) == ("m-1", granted.recorded.entry.sequence)
    assert granted.leased.lease_id.encode() in bytes(message.payload)
    again = allocate(agent, session_id=session_id, message_id="m-1")
    assert again.is_duplicate
    assert again.leased.lease_id == granted.leased.lease_id


# Who may


def test_others_leases_are_not_known_without_a_grant(agent: AccountPrincipal) -> None:
    lease = get_lease(allocate(agent))
    other = make_principal(create_service())
    for act in (
        lambda: release(other, lease),
        lambda: services.renew_port_lease(principal=other, lease_id=lease.id, ttl_ms=None, trace_id="t"),
        lambda: services.drain_port_lease(principal=other, lease_id=lease.id, trace_id="t"),
    ):
        with pytest.raises(LeaseNotFound):
            act()
    page = selectors.list_port_leases(principal=other, filters=PortLeaseFilters(), cursor=None, limit=10)
    assert page.leases == []
    checked = selectors.check_port(principal=other, port=lease.port)
    assert (checked.available, checked.reason, checked.lease) == (False, "leased", None)
    viewer = make_principal(create_person(roles=["viewer"]))
    page = selectors.list_port_leases(principal=viewer, filters=PortLeaseFilters(), cursor=None, limit=10)
    assert [each.lease_id for each in page.leases] == [str(lease.id)]
    with pytest.raises(AccessDenied):
        release(viewer, lease)


def test_policy_names_single_ports() -> None:
    account = create_person()
    role = create_role(grants=[allow("ports.allocate", f"port:{FIRST + 1}"), deny("ports.*", f"port:{FIRST}")])
    account.roles.add(role)
    principal = make_principal(account)
    assert allocate(principal).leased.port == FIRST + 1
    with pytest.raises(PortUnavailable):
        allocate(principal)
    with pytest.raises(AccessDenied):
        allocate(principal, port=FIRST)
    role.grants.filter(effect="allow").delete()
    with pytest.raises(AccessDenied):
        allocate(make_principal(account))


def test_a_list_is_walked_by_its_cursor_and_filtered(agent: AccountPrincipal) -> None:
    made = [get_lease(allocate(agent)) for _ in range(5)]
    release(agent, made[0])
    found: list[str] = []
    cursor = None
    while True:
        page = selectors.list_port_leases(principal=agent, filters=PortLeaseFilters(), cursor=cursor, limit=2)
        found += [each.lease_id for each in page.leases]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == [str(lease.id) for lease in reversed(made)]
    filters = PortLeaseFilters(port=made[1].port, owner=agent.name)
    page = selectors.list_port_leases(principal=agent, filters=filters, cursor=None, limit=10)
    assert [each.port for each in page.leases] == [made[1].port]
    with pytest.raises(InvalidArguments):
        selectors.list_port_leases(principal=agent, filters=PortLeaseFilters(), cursor="no", limit=10)


def test_checking_tells_what_the_port_is(settings: Any, agent: AccountPrincipal) -> None:
    set_ports(settings, reserved_ports=(str(LAST),))

    def check(port: int) -> str | None:
        return selectors.check_port(principal=agent, port=port).reason

    assert check(FIRST) is None
    assert check(LAST) == check(LAST + 1) == "not_leasable"
    with hold_port(FIRST):
        assert check(FIRST) == "in_use"
    lease = get_lease(allocate(agent, port=FIRST))
    checked = selectors.check_port(principal=agent, port=FIRST)
    assert (checked.reason, checked.lease and checked.lease.lease_id) == ("leased", str(lease.id))
    for port in (0, -1, 65_536):
        with pytest.raises(PortInvalid):
            check(port)


def test_a_quarantine_is_lifted_by_who_may(agent: AccountPrincipal) -> None:
    with hold_port(FIRST), pytest.raises(PortUnavailable):
        allocate(agent, port=FIRST)
    quarantine = PortQuarantine.objects.get()
    assert selectors.check_port(principal=agent, port=FIRST).reason == "quarantined"
    with pytest.raises(AccessDenied):
        services.lift_quarantine(principal=agent, quarantine=quarantine, trace_id="t")
    operator = make_principal(create_operator())
    assert services.lift_quarantine(principal=operator, quarantine=quarantine, trace_id="t")
    assert not services.lift_quarantine(principal=operator, quarantine=quarantine, trace_id="t")
    assert list_audited("ports.lift") == ["lifted"]
    assert allocate(agent, port=FIRST).leased.port == FIRST

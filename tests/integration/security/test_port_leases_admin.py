"""The console's pages of leased ports and of ports in quarantine, as a browser uses them."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from security import services
from security.domain.port_leases import QuarantineReason
from security.models import PortLease, PortQuarantine
from security.selectors import get_account_principal
from security.services import LeaseRequest
from security.services.port_lease_ends import quarantine_port
from tests.factories import create_person, create_service
from tests.ports import choose_range, hold_port, set_ports

pytestmark = pytest.mark.django_db

FIRST, LAST = choose_range()
SUBMITTED = {"_form_submitted": "on"}
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def _ranges(settings: Any) -> None:
    set_ports(settings, port_ranges=(f"{FIRST}-{LAST}",))


@pytest.fixture
def lease() -> PortLease:
    request = LeaseRequest(
        principal=get_account_principal(account=create_service(username="holder")),
        purpose=f"preview {HOSTILE}",
        port=None,
        ttl_ms=None,
        session_id=None,
        message_id="",
        idempotency_key=None,
        trace_id=uuid.uuid4().hex,
    )
    return PortLease.objects.get(id=services.allocate_port(request=request).leased.lease_id)


def get_text(client: Client, name: str, *arguments: object, **parameters: str) -> str:
    response = client.get(reverse(f"admin:security_{name}", args=arguments), parameters)
    assert response.status_code == 200, response.headers
    return response.content.decode()


def make_clerk(*permissions: str, roles: tuple[str, ...] = ()) -> Any:
    clerk = create_person(is_staff=True, roles=roles)
    clerk.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return clerk


def test_who_has_what_for_what_and_until_when_is_told(console: Client, lease: PortLease) -> None:
    for page in (get_text(console, "portlease_changelist"), get_text(console, "portlease_change", lease.pk)):
        for shown in (str(lease.port), lease.host, "reserved", "preview &lt;script&gt;", "holder", "the account"):
            assert shown in page
        assert HOSTILE not in page
    found = {"state": "reserved"}, {"q": str(lease.port)}, {"q": "preview"}, {"q": "holder"}
    for parameters in found:
        assert "holder" in get_text(console, "portlease_changelist", **parameters)
    assert "preview" not in get_text(console, "portlease_changelist", state="released")
    assert reverse("admin:security_portlease_changelist") in get_text(console, "portlease_changelist")


def test_an_operator_releases(console: Client, lease: PortLease) -> None:
    address = reverse("admin:security_portlease_release", args=[lease.pk])
    assert address in get_text(console, "portlease_change", lease.pk)
    console.get(address)
    lease.refresh_from_db()
    assert lease.state == "reserved"
    response = console.post(address, SUBMITTED)
    assert response.headers["HX-Redirect"] == reverse("admin:security_portlease_change", args=[lease.pk])
    lease.refresh_from_db()
    assert (lease.state, lease.end_reason) == ("released", "released")
    page = get_text(console, "portlease_change", lease.pk)
    assert address not in page
    assert LogEntry.objects.get().object_id == str(lease.pk)


def test_an_operator_drains_what_is_in_use(console: Client, lease: PortLease) -> None:
    address = reverse("admin:security_portlease_drain", args=[lease.pk])
    with hold_port(lease.port):
        console.post(address, SUBMITTED)
        lease.refresh_from_db()
        assert (lease.state, lease.end_reason) == ("draining", "drained")
        page = get_text(console, "portlease_change", lease.pk)
        assert address not in page
        assert reverse("admin:security_portlease_release", args=[lease.pk]) in page


def test_ending_a_lease_needs_a_grant(client: Client, lease: PortLease) -> None:
    client.force_login(make_clerk("view_portlease", roles=("viewer",)))
    page = get_text(client, "portlease_change", lease.pk)
    for name in ("release", "drain"):
        address = reverse(f"admin:security_portlease_{name}", args=[lease.pk])
        assert address not in page
        assert client.post(address, SUBMITTED).status_code == 403
    lease.refresh_from_db()
    assert lease.state == "reserved"


def test_looking_needs_the_permission(client: Client) -> None:
    client.force_login(make_clerk())
    for model in ("portlease", "portquarantine"):
        assert client.get(reverse(f"admin:security_{model}_changelist")).status_code == 403


def test_a_quarantine_tells_what_was_found_and_is_lifted(console: Client) -> None:
    quarantine_port(host="node-1", port=FIRST, reason=QuarantineReason.HELD, found="TCP on 127.0.0.1")
    quarantine_port(host="node-2", port=LAST, reason=QuarantineReason.STILL_HELD, found="over")
    PortQuarantine.objects.filter(port=LAST).update(until=timezone.now())
    row = PortQuarantine.objects.get(port=FIRST)
    listed = get_text(console, "portquarantine_changelist")
    for page in (listed, get_text(console, "portquarantine_change", row.pk)):
        for shown in (str(FIRST), "node-1", "TCP on 127.0.0.1", "something without a lease uses it"):
            assert shown in page
    assert "node-2" not in listed
    address = reverse("admin:security_portquarantine_lift", args=[row.pk])
    assert address in get_text(console, "portquarantine_change", row.pk)
    console.get(address)
    assert PortQuarantine.objects.filter(pk=row.pk).exists()
    response = console.post(address, SUBMITTED)
    assert response.headers["HX-Redirect"] == reverse("admin:security_portquarantine_changelist")
    assert not PortQuarantine.objects.filter(pk=row.pk).exists()


def test_lifting_needs_a_grant(client: Client) -> None:
    quarantine_port(host="node-1", port=FIRST, reason=QuarantineReason.HELD, found="")
    row = PortQuarantine.objects.get()
    client.force_login(make_clerk("view_portquarantine", roles=("viewer",)))
    address = reverse("admin:security_portquarantine_lift", args=[row.pk])
    assert address not in get_text(client, "portquarantine_change", row.pk)
    assert client.post(address, SUBMITTED).status_code == 403
    assert PortQuarantine.objects.exists()

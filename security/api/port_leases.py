"""The addresses of leases of ports: which method is which command, with examples for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from django.urls import path

from protocol.api.operations import Example, Operation, make_view, render_page

TAG: Final = "ports"
LEASE_ID: Final = "01a1fab0-26c1-7f60-b1a2-c3d4e5f60718"
LEASED: Final[dict[str, Any]] = {
    "port": 20417,
    "lease_id": LEASE_ID,
    "expires_at": "2026-11-20T20:50:13.250Z",
    "host": "node-1",
}
LEASE: Final[dict[str, Any]] = {
    "lease_id": LEASE_ID,
    "host": "node-1",
    "port": 20417,
    "state": "active",
    "purpose": "preview of the site",
    "owner": "agent",
    "holder_kind": "account",
    "holder_id": None,
    "created_at": "2026-11-20T20:40:13.250Z",
    "expires_at": "2026-11-20T20:55:02.114Z",
    "active_at": "2026-11-20T20:40:16.020Z",
    "ended_at": None,
    "end_reason": None,
    "released_at": None,
}
RELEASED: Final[dict[str, Any]] = {
    **LEASE,
    "state": "released",
    "ended_at": "2026-11-20T20:46:00.310Z",
    "end_reason": "released",
    "released_at": "2026-11-20T20:46:00.316Z",
}
STATUS: Final[dict[str, Any]] = {
    "port": 20417,
    "host": "node-1",
    "available": False,
    "reason": "leased",
    "lease": LEASE,
}

urlpatterns = [
    path(
        "ports/",
        make_view(
            get=Operation(
                command="ports.list",
                id="listPorts",
                tag=TAG,
                headers={"Link": "The next page, if there is one."},
                render=render_page,
                example=Example(query={"state": ["active"]}, answer={"leases": [LEASE], "next_cursor": None}),
            ),
            post=Operation(
                command="ports.allocate",
                id="allocatePort",
                tag=TAG,
                summary="Lease a port of the server's machine; it ends with its time or its release.",
                statuses={201: "The port is leased."},
                example=Example(body={"purpose": "preview of the site", "ttl_ms": 600000}, answer=LEASED),
            ),
        ),
        name="ports",
    ),
    path(
        "ports/check/",
        make_view(
            get=Operation(
                command="ports.check",
                id="checkPort",
                tag=TAG,
                example=Example(query={"port": 20417}, answer=STATUS),
            )
        ),
        name="port-check",
    ),
    path(
        "ports/<str:lease>/renew/",
        make_view(
            post=Operation(
                command="ports.renew",
                id="renewPort",
                tag=TAG,
                path={"lease": "lease_id"},
                example=Example(path={"lease": LEASE_ID}, body={"ttl_ms": 600000}, answer=LEASE),
            )
        ),
        name="port-renew",
    ),
    path(
        "ports/<str:lease>/release/",
        make_view(
            post=Operation(
                command="ports.release",
                id="releasePort",
                tag=TAG,
                path={"lease": "lease_id"},
                example=Example(path={"lease": LEASE_ID}, answer=RELEASED),
            )
        ),
        name="port-release",
    ),
]

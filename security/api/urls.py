"""This app's part of ``/api/v1/``."""

from __future__ import annotations

from django.urls import path

from protocol.api.operations import Operation, make_view, render_page
from security.api import examples, port_leases
from security.api.views import RefreshView, RevokeView, TokenView

SESSIONS = "sessions"

urlpatterns = [
    path("auth/token/", TokenView.as_view(), name="auth-token"),
    path("auth/refresh/", RefreshView.as_view(), name="auth-refresh"),
    path("auth/revoke/", RevokeView.as_view(), name="auth-revoke"),
    path(
        "sessions/",
        make_view(
            get=Operation(
                command="sessions.list",
                id="listSessions",
                tag=SESSIONS,
                headers={"Link": "The next page, if there is one."},
                render=render_page,
                example=examples.LIST_SESSIONS,
            )
        ),
        name="sessions",
    ),
    path(
        "sessions/revoke-all/",
        make_view(
            post=Operation(
                command="sessions.revoke_all", id="revokeAllSessions", tag=SESSIONS, example=examples.REVOKE_ALL
            )
        ),
        name="sessions-revoke-all",
    ),
    path(
        "sessions/<str:session>/",
        make_view(
            delete=Operation(
                command="sessions.revoke",
                id="revokeSession",
                tag=SESSIONS,
                path={"session": "session"},
                example=examples.REVOKE_SESSION,
            )
        ),
        name="session",
    ),
    *port_leases.urlpatterns,
]

"""This app's part of ``/api/v1/``."""

from __future__ import annotations

from django.urls import path

from security.api import port_leases
from security.api.views import RefreshView, RevokeView, TokenView

urlpatterns = [
    path("auth/token/", TokenView.as_view(), name="auth-token"),
    path("auth/refresh/", RefreshView.as_view(), name="auth-refresh"),
    path("auth/revoke/", RevokeView.as_view(), name="auth-revoke"),
    *port_leases.urlpatterns,
]

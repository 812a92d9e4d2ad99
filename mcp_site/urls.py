"""Every URL of the HTTP side."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from mcp_site.monitoring import views

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("api/v1/", include("protocol.api.urls")),
    path("healthz", views.show_health),
    path("readyz", views.show_readiness),
]

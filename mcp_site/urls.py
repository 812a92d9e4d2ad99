"""Every URL of the HTTP side."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularSwaggerSplitView

from mcp_site.monitoring import views
from protocol.api.problems import show_not_found
from security.api.key_set import show_key_set

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("api/v1/", include("protocol.api.urls")),
    path("api/v1/", include("security.api.urls")),
    path("api/v1/", include("tools.api.urls")),
    path("api/docs/", SpectacularSwaggerSplitView.as_view(url_name="openapi"), name="api-docs"),
    re_path(r"^api/", show_not_found),
    path(".well-known/mcp-keys.json", show_key_set, name="key-set"),
    path("healthz", views.show_health),
    path("readyz", views.show_readiness),
]

handler400 = "mcp_site.web.error_pages.show_bad_request"
handler403 = "mcp_site.web.error_pages.show_forbidden"
handler404 = "mcp_site.web.error_pages.show_not_found"
handler500 = "mcp_site.web.error_pages.show_failure"

"""The kernel's part of ``/api/v1/``."""

from __future__ import annotations

from django.urls import path

from protocol.api import views

urlpatterns = [path("", views.show_root, name="api-root")]

"""The kernel's part of ``/api/v1/``."""

from __future__ import annotations

from django.urls import path

from protocol.api.messages import MessagesView
from protocol.api.views import DocumentView, RootView

urlpatterns = [
    path("", RootView.as_view(), name="api-root"),
    path("openapi.json", DocumentView.as_view(), name="openapi"),
    path("messages/", MessagesView.as_view(), name="messages"),
]

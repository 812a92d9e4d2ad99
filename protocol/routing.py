"""Which consumer serves which WebSocket path; ``mcp_site.asgi`` mounts it."""

from __future__ import annotations

from django.urls import path, re_path

from protocol.consumers import MachineContextConsumer, refuse_unknown_path

websocket_urlpatterns = [
    path("ws/", MachineContextConsumer.as_asgi()),
    re_path("", refuse_unknown_path),  # type: ignore[arg-type]  # Channels' routes lead to ASGI applications
]

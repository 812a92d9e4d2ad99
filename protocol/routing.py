"""Which consumer serves which WebSocket path; ``mcp_site.asgi`` mounts it."""

from __future__ import annotations

from django.urls import path

from protocol.consumers import MachineContextConsumer

websocket_urlpatterns = [path("ws/", MachineContextConsumer.as_asgi())]

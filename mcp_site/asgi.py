"""The ASGI application: HTTP is Django's, WebSocket is the protocol's; every head is validated before either."""

from __future__ import annotations

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mcp_site.settings")

# Before the routing's import: it needs the apps loaded.
django_application = get_asgi_application()

from mcp_site.web.validation import RequestGuard  # noqa: E402  # as above
from protocol.routing import websocket_urlpatterns  # noqa: E402  # as above

application = RequestGuard(
    ProtocolTypeRouter({"http": django_application, "websocket": URLRouter(websocket_urlpatterns)})
)

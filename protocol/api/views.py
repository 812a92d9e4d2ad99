"""The API's root."""

from __future__ import annotations

import msgspec
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from msgspec import Struct

from protocol.consumers import get_terms
from protocol.domain.codec import CODECS
from protocol.domain.messages import AUTHENTICATION_METHODS, SUPPORTED_FEATURES, SUPPORTED_VERSIONS, Limits, ServerInfo


class ApiRoot(Struct, frozen=True, kw_only=True):
    """What a client may know before it connects."""

    server: ServerInfo
    protocol_versions: tuple[str, ...]
    features: tuple[str, ...]
    authentication_methods: tuple[str, ...]
    limits: Limits
    websocket_url: str
    websocket_subprotocols: tuple[str, ...]


@require_safe
def show_root(request: HttpRequest) -> HttpResponse:
    """Who this server is, what it speaks, and where its WebSocket is."""
    terms = get_terms()
    scheme = "wss" if request.is_secure() else "ws"
    root = ApiRoot(
        server=terms.server,
        protocol_versions=SUPPORTED_VERSIONS,
        features=SUPPORTED_FEATURES,
        authentication_methods=AUTHENTICATION_METHODS,
        limits=terms.limits,
        websocket_url=f"{scheme}://{request.get_host()}/ws/",
        websocket_subprotocols=tuple(codec.subprotocol for codec in CODECS),
    )
    return HttpResponse(msgspec.json.encode(root), content_type="application/json")

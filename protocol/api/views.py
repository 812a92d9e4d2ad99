"""The API's root, and its OpenAPI document."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from msgspec import Struct

from protocol.api.openapi import Access, Content, Description, Reply, make_document
from protocol.api.requests import ApiView
from protocol.api.responses import JSON_MEDIA_TYPE, respond_with_json
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


class RootView(ApiView):
    """``GET /api/v1/``."""

    def describe_operation(self, method: str) -> Description:  # noqa: ARG002  # it has one
        """As the document tells it."""
        example = {
            "server": {"name": "machine-context-protocol-server", "version": "0.1.0"},
            "protocol_versions": ["1.1"],
            "features": ["progress"],
            "authentication_methods": ["jwt", "api_key", "password"],
            "limits": {
                "max_message_size": 1_048_576,
                "max_batch": 1,
                "max_in_flight": 64,
                "timeout_ms": 30_000,
                "heartbeat_interval_ms": 20_000,
                "resume_window_ms": 0,
            },
            "websocket_url": "ws://127.0.0.1:9000/ws/",
            "websocket_subprotocols": ["mcp.v1.msgpack", "mcp.v1.json"],
        }
        return Description(
            id="showServer",
            tag="server",
            summary="Who this server is, what it speaks, and where its WebSocket is.",
            replies={200: Reply(description="The server.", content=Content(schema=ApiRoot, example=example))},
            access=Access.PUBLIC,
        )

    async def get(self, request: HttpRequest) -> HttpResponseBase:
        """Who this server is, what it speaks, and where its WebSocket is."""
        terms = get_terms(is_local=False)
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
        return respond_with_json(root, status=200)


class DocumentView(ApiView):
    """``GET /api/v1/openapi.json``."""

    schema = None  # type: ignore[assignment]  # REST framework's way to leave a view out of the document

    async def get(self, request: HttpRequest) -> HttpResponseBase:  # noqa: ARG002  # the same for everyone
        """The OpenAPI document."""
        response = HttpResponse(make_document(), content_type=JSON_MEDIA_TYPE)
        response["Cache-Control"] = "no-cache"
        return response

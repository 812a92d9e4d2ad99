"""``validate_request`` around the whole ASGI application: every request and every upgrade passes it first."""

from __future__ import annotations

import http
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from mcp_site.web.headers import CSP_HEADER, NOTHING_POLICY
from protocol.api.problems import PROBLEM_MEDIA_TYPE, TRACE_HEADER, make_problem
from protocol.domain.messages import describe_error
from protocol.domain.requests import RequestRefused, validate_request
from protocol.link import make_trace_id

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class RequestGuard:
    """See the module."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = None
        if scope["type"] in ("http", "websocket"):
            refused = validate_request(
                method=scope.get("method", "GET"),
                path=scope.get("path", ""),
                query=scope.get("query_string", b""),
                headers=scope.get("headers", ()),
            )
        if refused is None:
            await self._application(scope, receive, send)
        elif scope["type"] == "http":
            await _respond(send, refused, prefix="http")
        else:
            await receive()  # websocket.connect
            if "websocket.http.response" in scope.get("extensions", {}):
                await _respond(send, refused, prefix="websocket.http")
            else:
                await send({"type": "websocket.close"})


def describe_refusal(refused: RequestRefused) -> tuple[dict[str, str], bytes]:
    """The answer's headers and body: the error as a problem. The connection ends with it."""
    trace_id = make_trace_id()
    problem = make_problem(describe_error(refused.error, trace_id=trace_id), status=refused.status)
    body = msgspec.json.encode(problem)
    headers = {
        "content-type": PROBLEM_MEDIA_TYPE,
        "content-length": str(len(body)),
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        TRACE_HEADER.lower(): trace_id,
        CSP_HEADER.lower(): NOTHING_POLICY,
        # What follows on the connection was not looked at.
        "connection": "close",
    }
    if refused.status == http.HTTPStatus.METHOD_NOT_ALLOWED:
        headers["allow"] = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    return headers, body


async def _respond(send: Send, refused: RequestRefused, *, prefix: str) -> None:
    headers, body = describe_refusal(refused)
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": f"{prefix}.response.start", "status": refused.status, "headers": encoded})
    await send({"type": f"{prefix}.response.body", "body": body})

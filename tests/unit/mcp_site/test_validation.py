"""``validate_request`` around the application: what is refused reaches nothing behind it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import msgspec
import pytest

from mcp_site.web.validation import RequestGuard


async def ask(**scope: Any) -> tuple[list[MutableMapping[str, Any]], bool]:
    """What is sent, and whether the application was asked."""
    asked: list[object] = []
    sent: list[MutableMapping[str, Any]] = []

    async def application(scope: MutableMapping[str, Any], receive: object, send: object) -> None:
        asked.append(scope)

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    head = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    await RequestGuard(application)({**head, **scope}, receive, send)
    return sent, bool(asked)


@pytest.mark.parametrize("kind", ["http", "websocket", "lifespan"])
async def test_what_is_in_order_goes_on(kind: str) -> None:
    assert await ask(type=kind) == ([], True)


async def test_a_request_that_is_refused_is_told_why() -> None:
    (start, body), asked = await ask(query_string=b"a=%00")
    assert not asked
    headers = dict(start["headers"])
    assert (start["status"], headers[b"content-type"]) == (400, b"application/problem+json")
    problem = msgspec.json.decode(body["body"])
    assert (problem["code"], problem["status"]) == ("protocol.invalid_message", 400)
    assert problem["trace_id"].encode() == headers[b"x-trace-id"]


async def test_a_method_that_is_none_is_told_which_there_are() -> None:
    (start, _), _ = await ask(method="TRACE")
    assert (start["status"], dict(start["headers"])[b"allow"][:9]) == (405, b"GET, HEAD")


async def test_an_upgrade_is_refused_before_it_is_one() -> None:
    upgrade = {"type": "websocket", "path": "/ws/\0"}
    (start, _), asked = await ask(**upgrade, extensions={"websocket.http.response": {}})
    assert (start["type"], start["status"], asked) == ("websocket.http.response.start", 400, False)
    assert await ask(**upgrade) == ([{"type": "websocket.close"}], False)

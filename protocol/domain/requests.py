"""``validate_request``: what may be in the head of an HTTP request or a WebSocket upgrade, from anybody. Pure.

The first step on every door, before anything is routed, decoded or looked up: names, sizes and characters. What a body
may hold is its reader's (``api.requests``, ``codec``), what a value may be the typed structure's that it becomes; the
list of all of it is in the docs (``docs/reference/validation.md``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from protocol.errors import InvalidMessage, MCPError, MessageTooLarge, UnsupportedType

MAX_PATH_BYTES: Final = 2_048
MAX_QUERY_BYTES: Final = 8_192
MAX_HEADERS: Final = 100
MAX_HEADER_BYTES: Final = 16_384
MAX_HEADERS_BYTES: Final = 32_768
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SINGLE_HEADERS: Final = frozenset(
    {b"authorization", b"content-length", b"content-type", b"content-encoding", b"host", b"idempotency-key", b"origin"}
)
"""Sent twice they mean one thing to one reader and another to the next."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_ENCODED_CONTROL: Final = re.compile(rb"%(?:00|7[fF])|[\x00-\x1f\x7f]")
"""In a query as it is sent. Tabs and new lines may be written in it, by ``%09`` and ``%0A``."""
_CONTROL_IN_HEADER: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRefused:
    """Why, and with which status of HTTP's own."""

    error: MCPError
    status: int


def validate_request(
    *, method: str, path: str, query: bytes, headers: Sequence[tuple[bytes, bytes]]
) -> RequestRefused | None:
    """Why this head is refused; ``None``: it may go on. ``path`` is decoded, ``query`` as it was sent."""
    if method not in METHODS:
        return RequestRefused(error=UnsupportedType("The server takes no such method."), status=405)
    if len(path.encode(errors="surrogateescape")) > MAX_PATH_BYTES or len(query) > MAX_QUERY_BYTES:
        bounds = {"path": MAX_PATH_BYTES, "query": MAX_QUERY_BYTES}
        return RequestRefused(error=MessageTooLarge("The address is too long.", details=bounds), status=414)
    if _CONTROL.search(path) or _ENCODED_CONTROL.search(query):
        return RequestRefused(error=InvalidMessage("The address holds a control character."), status=400)
    return _judge_headers(headers)


def _judge_headers(headers: Sequence[tuple[bytes, bytes]]) -> RequestRefused | None:
    sizes = [len(name) + len(value) for name, value in headers]
    if len(headers) > MAX_HEADERS or sum(sizes) > MAX_HEADERS_BYTES or max(sizes, default=0) > MAX_HEADER_BYTES:
        bounds = {"headers": MAX_HEADERS, "bytes": MAX_HEADERS_BYTES, "bytes_each": MAX_HEADER_BYTES}
        return RequestRefused(
            error=MessageTooLarge("The headers are too many or too large.", details=bounds), status=431
        )
    if any(_CONTROL_IN_HEADER.search(value) for _, value in headers):
        return RequestRefused(error=InvalidMessage("A header holds a control character."), status=400)
    counts = Counter(name.lower() for name, _ in headers)
    for name in SINGLE_HEADERS & counts.keys():
        if counts[name] > 1:
            return RequestRefused(
                error=InvalidMessage("This header comes once.", details={"path": name.decode()}), status=400
            )
    encoding = next((value for name, value in headers if name.lower() == b"content-encoding"), b"identity")
    if encoding.strip().lower() not in (b"", b"identity"):
        return RequestRefused(
            error=UnsupportedType("Send the body as it is, not compressed.", details={"path": "content-encoding"}),
            status=415,
        )
    return None

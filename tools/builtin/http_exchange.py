"""One HTTP exchange with its redirects: what is sent, which redirects are followed, how much is taken of the answer.

No proxy of the environment, cookie or ``.netrc`` has a part in it: httpcore knows none of them. Where a connection may
lead is ``tools.builtin.dialing``, which httpcore is given; what callers may ask and are told is
``tools.builtin.http_request``. Imported with the first request only, since httpcore takes a megabyte of each worker.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import httpcore2

from tools.authoring import ToolError
from tools.builtin.addresses import Network
from tools.builtin.dialing import Deadline, DestinationRefused, Dialer, ExchangeFailed, GuardedBackend
from tools.builtin.urls import Target, parse_redirect

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_KEPT_ACROSS_ORIGINS: Final = frozenset({"accept", "accept-language", "content-language", "content-type", "user-agent"})
"""All that another origin gets of the caller's headers. Any other one may be a credential."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be sent, and how much may come back."""

    method: str
    target: Target
    headers: Mapping[str, str] = field(repr=False)
    """By lower-case name; neither Host nor what frames the message."""
    body: bytes | None = field(repr=False)
    max_response_bytes: int
    max_redirects: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back in the end."""

    status: int
    reason: str
    headers: Sequence[tuple[str, str]] = field(repr=False)
    target: Target
    """What answered."""
    redirects: Sequence[str]
    """The URLs that led there, in their order."""
    body: bytes = field(repr=False)
    """As it was sent, encoded where the server did so against what it was asked for."""
    is_cut: bool


def exchange(*, order: Order, dialer: Dialer, allowed: Sequence[Network], deadline: Deadline) -> Answer:
    """Send the order, follow its redirects, and take the answer.

    Raises:
        DestinationRefused: it leads to where this tool does not connect; nothing was sent there.
        ExchangeTimedOut: the deadline passed.
        ExchangeFailed: there is no connection, or no HTTP on it, or a redirect that cannot be followed.
    """
    backend = GuardedBackend(dialer=dialer, allowed=allowed, deadline=deadline)
    redirects: list[str] = []
    while True:
        answer = _send(order=order, backend=backend, deadline=deadline)
        location = _get_location(answer) if order.max_redirects else None
        if location is None:
            return replace(answer, redirects=redirects)
        if len(redirects) == order.max_redirects:
            raise ExchangeFailed(f"The server redirects more than {order.max_redirects} times.")
        redirects.append(order.target.url)
        order = _redirect(order=order, status=answer.status, target=_parse_location(order.target, location))


def _send(*, order: Order, backend: GuardedBackend, deadline: Deadline) -> Answer:
    """One request and its response, on a connection of its own."""
    target = order.target
    origin = httpcore2.Origin(scheme=target.scheme.encode(), host=target.host.encode(), port=target.port)
    url = httpcore2.URL(scheme=origin.scheme, host=origin.host, port=origin.port, target=target.path)
    # The context reads the system's certificates, which takes 30 ms: not for plain HTTP.
    context = ssl.create_default_context() if target.scheme == "https" else None
    connection = httpcore2.HTTPConnection(origin=origin, ssl_context=context, network_backend=backend)
    try:
        with (
            contextlib.closing(connection),
            connection.stream(order.method, url, headers=_list_headers(order), content=order.body) as response,
        ):
            body, is_cut = _read_body(response, limit=order.max_response_bytes, deadline=deadline)
    except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
        raise ExchangeFailed(f"{target.host!r} broke the connection off, or does not speak HTTP/1.1.") from error
    return Answer(
        status=response.status,
        reason=response.extensions["reason_phrase"].decode("latin-1"),
        headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers],
        target=target,
        redirects=(),
        body=body,
        is_cut=is_cut,
    )


def _list_headers(order: Order) -> list[tuple[str, str]]:
    headers = {
        "host": order.target.authority,
        "accept": "*/*",
        "user-agent": "machine-context-protocol-server",
        **order.headers,
        # A compressed body could not be cut, and a small one could be huge.
        "accept-encoding": "identity",
        "connection": "close",
    }
    if order.body is not None:
        headers["content-length"] = str(len(order.body))
    return list(headers.items())


def _read_body(response: httpcore2.Response, *, limit: int, deadline: Deadline) -> tuple[bytes, bool]:
    """The body up to the limit, and whether there was more."""
    body = bytearray()
    for chunk in response.iter_stream():
        # The stream asks before it reads; many small chunks may come of one read.
        deadline.get_remaining_seconds()
        taken = limit - len(body)
        body += chunk[:taken]
        if len(chunk) > taken:
            return bytes(body), True
    return bytes(body), False


def _get_location(answer: Answer) -> str | None:
    """``None``: it is no redirect."""
    if answer.status not in _REDIRECTS:
        return None
    return next((value for name, value in answer.headers if name.lower() == "location"), None)


def _parse_location(current: Target, location: str) -> Target:
    with contextlib.suppress(UnicodeDecodeError):
        location = location.encode("latin-1").decode()
    try:
        return parse_redirect(current=current, location=location)
    except ToolError as error:
        raise DestinationRefused(f"The server redirects to where this tool does not go: {error.message}") from error


def _redirect(*, order: Order, status: int, target: Target) -> Order:
    """The request that follows a redirect, as browsers make it (Fetch Standard, HTTP-redirect fetch)."""
    headers, method, body = dict(order.headers), order.method, order.body
    if (status == 303 and method != "HEAD") or (status in {301, 302} and method == "POST"):
        method, body = "GET", None
        headers = {name: value for name, value in headers.items() if not name.startswith("content-")}
    if target.origin != order.target.origin:
        headers = {name: value for name, value in headers.items() if name in _KEPT_ACROSS_ORIGINS}
    return replace(order, method=method, body=body, headers=headers, target=target)

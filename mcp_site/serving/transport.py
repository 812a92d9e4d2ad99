"""Which peers may speak plaintext, and whose forwarded headers count. Around the ASGI application, before all else."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

from mcp_site.settings.environment import Environment
from protocol.domain.addresses import Address, parse_address
from security.domain.addresses import is_in_any, parse_network

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

REFUSAL = b"This server speaks plaintext with its own machine and trusted proxies only.\n"


class PlaintextGuard:
    """Refuses plaintext from anywhere but this machine and the trusted proxies."""

    def __init__(self, application: Application, *, trusted_proxies: tuple[str, ...]) -> None:
        self._application = application
        self._networks = [parse_network(network) for network in trusted_proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["scheme"] in {"https", "wss"} or self._is_trusted(scope):
            await self._application(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(REFUSAL)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": REFUSAL})

    def _is_trusted(self, scope: Scope) -> bool:
        if not scope.get("client"):
            return False
        peer = parse_address(scope["client"][0])
        if peer is None:
            return False
        is_own_machine = peer.is_loopback or scope["client"][0] == scope["server"][0]
        return is_own_machine or is_in_any(address=peer, networks=self._networks)


class ProxyHeaders:
    """Takes the client's address and scheme from a trusted proxy, and from nobody else.

    ``X-Forwarded-For`` is read from its end, where the nearest proxy has written: the first address that is no trusted
    proxy's is the client's, and whatever stands before it anybody may have made up. uvicorn's own compares the peer as
    it is written, so that a proxy on IPv4 is a stranger to a socket of both versions, and takes what is no address for
    one. ``Forwarded`` and all other headers count for nothing.
    """

    def __init__(self, application: Application, *, trusted_proxies: tuple[str, ...]) -> None:
        self._application = application
        self._networks = [parse_network(network) for network in trusted_proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and scope.get("client") and self._is_trusted(scope["client"][0]):
            self._read_headers(scope)
        await self._application(scope, receive, send)

    def _is_trusted(self, text: str) -> bool:
        address = parse_address(text)
        return address is not None and is_in_any(address=address, networks=self._networks)

    def _read_headers(self, scope: Scope) -> None:
        schemes = list(_list_values(scope, b"x-forwarded-proto"))
        if schemes and schemes[-1] in SCHEMES:
            scope["scheme"] = SCHEMES[schemes[-1]][scope["type"] == "websocket"]
        client: Address | None = None
        for text in reversed(list(_list_values(scope, b"x-forwarded-for"))):
            address = parse_forwarded(text)
            if address is None:
                # What a trusted proxy wrote and is none: the last that is known has to do.
                break
            client = address
            if not is_in_any(address=address, networks=self._networks):
                break
        if client is not None:
            scope["client"] = (str(client), 0)


SCHEMES: Final = {"http": ("http", "ws"), "https": ("https", "wss"), "ws": ("http", "ws"), "wss": ("https", "wss")}
"""By what a proxy says: the scheme of a request, and that of a socket."""


WITH_PORT: Final = re.compile(r"\[(?P<bracketed>[^][]+)\](?::[0-9]{1,5})?|(?P<plain>[^][:]+):[0-9]{1,5}")


def _list_values(scope: Scope, name: bytes) -> Iterable[str]:
    """The elements of a header in order, also where it stands there several times."""
    for key, value in scope["headers"]:
        if key == name:
            yield from (element.strip() for element in value.decode("latin-1").split(","))


def parse_forwarded(text: str) -> Address | None:
    """The address of an element of ``X-Forwarded-For``, which may have a port behind it."""
    with_port = WITH_PORT.fullmatch(text)
    return parse_address(text if with_port is None else with_port["bracketed"] or with_port["plain"])


def guard_transport(application: Application, *, environment: Environment) -> Application:
    """The application behind the rules that the environment sets."""
    guarded = application
    if environment.trusted_proxies:
        guarded = ProxyHeaders(guarded, trusted_proxies=environment.trusted_proxies)
    if environment.tls_cert is None and not environment.allow_insecure_transport:
        guarded = PlaintextGuard(guarded, trusted_proxies=environment.trusted_proxies)
    return guarded

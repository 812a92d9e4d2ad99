"""Which peers may speak plaintext, and whose forwarded headers count. Around the ASGI application, before all else."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from mcp_site.settings.environment import Environment

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

REFUSAL = b"This server speaks plaintext with its own machine and trusted proxies only.\n"


class PlaintextGuard:
    """Refuses plaintext from anywhere but this machine and the trusted proxies."""

    def __init__(self, application: Application, *, trusted_proxies: tuple[str, ...]) -> None:
        self._application = application
        self._networks = [ipaddress.ip_network(network) for network in trusted_proxies]

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
        peer = ipaddress.ip_address(scope["client"][0].partition("%")[0])
        if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped:
            peer = peer.ipv4_mapped
        is_own_machine = peer.is_loopback or scope["client"][0] == scope["server"][0]
        return is_own_machine or any(peer in network for network in self._networks)


def guard_transport(application: Application, *, environment: Environment) -> Application:
    """The application behind the rules that the environment sets."""
    guarded = application
    if environment.trusted_proxies:
        guarded = ProxyHeadersMiddleware(guarded, list(environment.trusted_proxies))  # type: ignore[arg-type, assignment]  # uvicorn's narrower ASGI types
    if environment.tls_cert is None and not environment.allow_insecure_transport:
        guarded = PlaintextGuard(guarded, trusted_proxies=environment.trusted_proxies)
    return guarded

"""Who may speak plaintext with a server that listens beyond loopback."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest

from mcp_site.serving.transport import guard_transport
from mcp_site.settings.environment import parse_environment


async def ask(
    *, peer: str, kind: str = "http", scheme: str | None = None, forwarded_for: str = "", **variables: str
) -> tuple[list[MutableMapping[str, Any]], MutableMapping[str, Any]]:
    """What a peer is sent, and the scope that the application saw (empty when it was not asked)."""
    seen: MutableMapping[str, Any] = {}
    sent: list[MutableMapping[str, Any]] = []

    async def application(scope: MutableMapping[str, Any], receive: object, send: object) -> None:
        seen.update(scope)

    async def receive() -> MutableMapping[str, Any]:
        return {"type": f"{kind}.connect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    headers = [(b"x-forwarded-for", forwarded_for.encode()), (b"x-forwarded-proto", b"https")] if forwarded_for else []
    scope = {
        "type": kind,
        "scheme": scheme or {"http": "http", "websocket": "ws"}[kind],
        "client": (peer, 50000),
        "server": ("192.0.2.10", 9000),
        "headers": headers,
    }
    guarded = guard_transport(application, environment=parse_environment({"MCP_BIND": "192.0.2.10", **variables}))
    await guarded(scope, receive, send)
    return sent, seen


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("peer", "variables", "is_let_in"),
    [
        ("127.0.0.1", {}, True),
        ("::1", {}, True),
        ("::ffff:127.0.0.1", {}, True),
        ("192.0.2.10", {}, True),  # the machine itself, by its outer address
        ("192.0.2.11", {}, False),
        ("10.1.2.3", {"MCP_TRUSTED_PROXIES": "10.0.0.0/8"}, True),
        ("::ffff:10.1.2.3", {"MCP_TRUSTED_PROXIES": "10.0.0.0/8"}, True),
        ("11.1.2.3", {"MCP_TRUSTED_PROXIES": "10.0.0.0/8"}, False),
        ("203.0.113.5", {"MCP_ALLOW_INSECURE_TRANSPORT": "1"}, True),
    ],
)
async def test_plaintext_is_for_this_machine_and_trusted_proxies(
    kind: str, peer: str, variables: dict[str, str], is_let_in: bool
) -> None:
    sent, seen = await ask(peer=peer, kind=kind, **variables)
    assert bool(seen) == is_let_in
    if not is_let_in:
        refusal = {"http": ("http.response.start", "status", 403), "websocket": ("websocket.close", "code", 1008)}
        type_, key, value = refusal[kind]
        assert (sent[0]["type"], sent[0][key]) == (type_, value)


async def test_forwarded_headers_count_from_a_trusted_proxy_only() -> None:
    proxies = {"MCP_TRUSTED_PROXIES": "10.0.0.0/8"}
    _, seen = await ask(peer="10.1.2.3", forwarded_for="203.0.113.5", **proxies)
    assert (seen["client"][0], seen["scheme"]) == ("203.0.113.5", "https")
    # A client's own header stands before the proxy's: it is not believed.
    _, seen = await ask(peer="10.1.2.3", forwarded_for="127.0.0.1, 203.0.113.5", **proxies)
    assert seen["client"][0] == "203.0.113.5"
    _, seen = await ask(peer="127.0.0.1", forwarded_for="203.0.113.5", **proxies)
    assert (seen["client"][0], seen["scheme"]) == ("127.0.0.1", "http")
    # Pretending to be TLS gets nobody past the guard.
    sent, seen = await ask(peer="203.0.113.5", forwarded_for="127.0.0.1", **proxies)
    assert (sent[0]["status"], seen) == (403, {})

"""Who may speak plaintext with a server that listens beyond loopback."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest

from mcp_site.serving.transport import ProxyHeaders, guard_transport
from mcp_site.settings.reading import parse_environment


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


PROXIES = ("10.0.0.0/8", "2001:db8::/32")
CLIENT, STRANGER = "192.0.2.7", "203.0.113.5"


async def find_client(peer: str, *headers: tuple[str, str], kind: str = "http") -> tuple[str, str]:
    """The address and scheme with which the application sees the request."""
    seen: list[dict[str, Any]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:  # as ASGI has it
        seen.append(scope)

    scope = {
        "type": kind,
        "scheme": "ws" if kind == "websocket" else "http",
        "client": (peer, 5),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
    }
    await ProxyHeaders(application, trusted_proxies=PROXIES)(scope, None, None)  # type: ignore[arg-type]  # never called
    return seen[0]["client"][0], seen[0]["scheme"]


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        (STRANGER, [CLIENT], STRANGER),
        (STRANGER, ["10.1.1.1", CLIENT], STRANGER),
        ("10.0.0.1", [CLIENT], CLIENT),
        ("::ffff:10.0.0.1", [CLIENT], CLIENT),
        ("2001:db8::1", [f"{CLIENT}:4711"], CLIENT),
        ("10.0.0.1", ["[2001:db9::7]:443"], "2001:db9::7"),
        ("10.0.0.1", [f"{STRANGER}, {CLIENT}"], CLIENT),
        ("10.0.0.1", [STRANGER, CLIENT], CLIENT),
        ("10.0.0.1", [f"{STRANGER}, {CLIENT}, 10.9.9.9"], CLIENT),
        ("10.0.0.1", [f"{STRANGER}, {CLIENT}", "10.9.9.9, ::ffff:10.8.8.8"], CLIENT),
        ("10.0.0.1", ["10.9.9.9"], "10.9.9.9"),
        ("10.0.0.1", [f"{CLIENT}, unknown"], "10.0.0.1"),
        ("10.0.0.1", [f"{CLIENT}, unknown, 10.9.9.9"], "10.9.9.9"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["[2001:db9::7%25eth0]:443"], "2001:db9::7"),
        ("fe80::1%eth0", [CLIENT], "fe80::1%eth0"),
        ("2001:db8::1%eth0", [CLIENT], CLIENT),
        ("10.0.0.1", ["[::ffff:192.0.2.7]:80"], CLIENT),
        ("10.0.0.1", ["::ffff:192.0.2.7"], CLIENT),
        ("10.0.0.1", ["2001:db9::7"], "2001:db9::7"),
        *(
            ("10.0.0.1", [f"{STRANGER}, {rubbish}"], "10.0.0.1")
            for rubbish in (
                "_hidden",
                "192.0.2.7:port",
                "192.0.2.7:123456",
                "192.0.2.7%eth0",
                "192.0.2.07",
                "192.0.2",
                "0x7f000001",
                "2130706433",
                "[192.0.2.7",
                "[2001:db9::7]x",
                "[2001:db9::7]]:1",
                "[]",
                "2001:db9::7::",
                "for=192.0.2.7",
                '"192.0.2.7"',
                "192.0.2.7;10.0.0.1",
                "localhost",
                "\t",
                "٣.٣.٣.٣".encode().decode("latin-1"),
                "x" * 5_000,
            )
        ),
        ("10.0.0.1", [], "10.0.0.1"),
        ("100.0.0.1", [CLIENT], "100.0.0.1"),
    ],
)
async def test_the_client_is_the_last_that_is_no_trusted_proxy(peer: str, forwarded: list[str], expected: str) -> None:
    headers = [("X-Forwarded-For", value) for value in forwarded]
    assert (await find_client(peer, *headers))[0] == expected


@pytest.mark.parametrize("header", ["Forwarded", "X-Real-IP", "X-Client-IP", "CF-Connecting-IP"])
async def test_no_other_header_says_who_the_client_is(header: str) -> None:
    assert (await find_client("10.0.0.1", (header, f"for={CLIENT}")))[0] == "10.0.0.1"
    assert (await find_client("10.0.0.1", (header, CLIENT)))[0] == "10.0.0.1"


@pytest.mark.parametrize(
    ("peer", "kind", "said", "expected"),
    [
        ("10.0.0.1", "http", "https", "https"),
        ("10.0.0.1", "websocket", "https", "wss"),
        ("10.0.0.1", "websocket", "wss", "wss"),
        ("10.0.0.1", "http", "gopher", "http"),
        ("10.0.0.1", "http", "https, http", "http"),
        (STRANGER, "http", "https", "http"),
        (STRANGER, "websocket", "wss", "ws"),
    ],
)
async def test_the_scheme_is_a_trusted_proxys_word_only(peer: str, kind: str, said: str, expected: str) -> None:
    assert (await find_client(peer, ("X-Forwarded-Proto", said), kind=kind))[1] == expected

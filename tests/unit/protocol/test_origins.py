"""Which web pages may open a WebSocket."""

from __future__ import annotations

import pytest

from protocol.domain.origins import is_allowed_origin

OWN = {"mcp.example", "127.0.0.1", "[::1]"}


@pytest.mark.parametrize(
    ("origin", "host", "is_secure", "is_let_in"),
    [
        (None, "mcp.example", True, True),
        ("https://mcp.example", "mcp.example", True, True),
        ("https://MCP.example", "mcp.EXAMPLE", True, True),
        ("http://127.0.0.1:9000", "127.0.0.1:9000", False, True),
        ("http://[::1]:9000", "[::1]:9000", False, True),
        ("https://app.example", "mcp.example", True, True),
        ("https://evil.example", "mcp.example", True, False),
        ("http://mcp.example", "mcp.example", True, False),
        ("https://mcp.example", "mcp.example", False, False),
        ("https://mcp.example:8443", "mcp.example", True, False),
        ("https://mcp.example.evil.example", "mcp.example", True, False),
        ("https://evil.example/https://mcp.example", "mcp.example", True, False),
        ("null", "mcp.example", True, False),
        ("", "mcp.example", True, False),
        # A name of the attacker's own that leads here.
        ("http://evil.example:9000", "evil.example:9000", False, False),
        ("http://", "", False, False),
    ],
)
def test_a_page_is_let_in_if_it_is_ours_or_named(
    origin: str | None, host: str, is_secure: bool, is_let_in: bool
) -> None:
    assert (
        is_allowed_origin(
            origin,
            host=host,
            is_secure=is_secure,
            allowed_origins=("https://app.example",),
            is_own_host=lambda found: found.rpartition(":")[0].lower() in OWN or found.lower() in OWN,
        )
        is is_let_in
    )

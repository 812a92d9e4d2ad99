"""An example for each operation of this app, as the OpenAPI document shows it; a test holds them against the types."""

from __future__ import annotations

from typing import Final

from protocol.api.operations import Example

SESSION: Final = "01a1fa78-65e1-76b4-b530-821efc884487"

LIST_SESSIONS: Final = Example(
    query={"limit": 1},
    answer={
        "sessions": [
            {
                "id": SESSION,
                "account": "agent",
                "client": "my-agent",
                "client_version": "2.0",
                "address": "192.0.2.7",
                "security_level": "standard",
                "credential": "key mcp_n_rtTWBw (laptop)",
                "since": "2026-11-20T19:38:30.270Z",
                "last_seen": "2026-11-20T19:54:16.836Z",
                "is_current": False,
            }
        ],
        "next_cursor": SESSION,
    },
)
REVOKE_SESSION: Final = Example(path={"session": SESSION}, answer={"revoked": True})
REVOKE_ALL: Final = Example(answer={"sessions": 3, "token_families": 1})

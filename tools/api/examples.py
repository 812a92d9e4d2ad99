"""An example for each operation of this app, as the OpenAPI document shows it; a test holds them against the types."""

from __future__ import annotations

from typing import Any, Final

from protocol.api.operations import Example

EXECUTION: Final = "01a1fa78-65e1-76b4-b530-821efc884487"
_HASH: Final = "b4d2fffb0ad09c9e14d87c526b73a4eb14632fabcb7c0f39ae957e193e30465e"
_TIMES: Final = {
    "created_at": "2026-11-20T19:38:30.270Z",
    "started_at": "2026-11-20T19:38:30.275Z",
    "finished_at": "2026-11-20T19:38:30.281Z",
}
_SUMMARY: Final[dict[str, Any]] = {
    "name": "text.count_words",
    "version": "1.0.0",
    "description": "Count the words, lines and characters of a text.",
    "capabilities": ["text.analysis"],
    "idempotent": True,
    "state": "enabled",
    "labels": ["production"],
    "security_level": None,
}

LIST_TOOLS: Final = Example(query={"capability": "text.analysis"}, answer={"tools": [_SUMMARY], "next_cursor": None})
DESCRIBE_TOOL: Final = Example(
    path={"name": "text.count_words"},
    answer={
        **_SUMMARY,
        "input_schema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
        "output_schema": {"type": "object", "properties": {"words": {"type": "integer"}}, "required": ["words"]},
        "timeout_ms": 10_000,
        "state_reason": "",
        "definition_hash": _HASH,
        "versions": [
            {"version": "1.0.0", "state": "available", "definition_hash": _HASH, "created_at": _TIMES["created_at"]}
        ],
    },
)
EXECUTE_TOOL: Final = Example(
    path={"name": "text.count_words"},
    query={"wait": 5},
    body={"input": {"text": "one two"}},
    answer={"execution_id": EXECUTION, "state": "queued"},
)
LIST_EXECUTIONS: Final = Example(
    query={"tool": "text.count_words", "limit": 1},
    answer={
        "executions": [
            {
                "execution_id": EXECUTION,
                "tool": "text.count_words",
                "version": "1.0.0",
                "state": "succeeded",
                "attempt": 1,
                "progress": None,
                "requested_by": "agent",
                **_TIMES,
            }
        ],
        "next_cursor": "WyIyMDI2LTExLTIwVDE5OjM4OjMwLjI3MFoiXQ",
    },
)
GET_EXECUTION: Final = Example(
    path={"execution": EXECUTION},
    answer={
        "execution_id": EXECUTION,
        "tool": "text.count_words",
        "version": "1.0.0",
        "definition_hash": _HASH,
        "state": "succeeded",
        "attempt": 1,
        "input": {"text": "one two"},
        "output": {"words": 2, "lines": 1, "characters": 7},
        "progress": None,
        "requested_by": "agent",
        **_TIMES,
        "events": [
            {"position": 1, "kind": "state", "at": _TIMES["created_at"], "data": {"state": "queued", "attempt": 0}}
        ],
    },
)
CANCEL_EXECUTION: Final = Example(path={"execution": EXECUTION}, body={"mode": "graceful"}, answer={"cancelled": True})
RETRY_EXECUTION: Final = Example(path={"execution": EXECUTION}, answer={"execution_id": EXECUTION, "state": "queued"})
STREAM_EVENTS: Final = Example(
    path={"execution": EXECUTION},
    answer=(
        "retry: 1000\n\n"
        "id: 3\nevent: execution.updated\n"
        f'data: {{"execution_id":"{EXECUTION}","state":"succeeded","attempt":1,"position":3}}\n\n'
    ),
)

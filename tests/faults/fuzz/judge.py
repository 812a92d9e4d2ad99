"""What may come back, whatever was sent: known codes, in their form, that give nothing away."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tests.client import Encoding
from tests.services import PROJECT_ROOT, Product

TYPES = frozenset({"response", "error", "event", "handshake", "authentication", "heartbeat", "state_sync", "command"})
ERROR_FIELDS = {"code", "category", "message", "retryable", "retry_after_ms", "details", "trace_id"}
CLOSE_CODES = frozenset({1000, 1002, 1003, 1007, 1009, 4400, 4401, 4403, 4406, 4408, 4409, 4429})
"""With which a connection may end in an hour of nonsense: 1011 (failed) is not among them."""
MAX_FINDINGS = 20
MAX_ERROR_BYTES = 8_192
"""Of an error's encoding: what the client sent is not sent back to it."""
SECRETS = re.compile(
    r"Traceback|File \"|\.py\b|site-packages|\bSELECT\b|INSERT INTO|UPDATE \"|sqlite3?\.|psycopg|django\.|msgspec\."
    r"|<class |<function |object at 0x"
)
FAILURES = re.compile(
    r"Traceback|Task exception was never retrieved|was never awaited|ERROR\b|CRITICAL\b|\"level\": \"error\""
)


class TooManyFindings(Exception):
    """Enough to look at."""


@dataclass(kw_only=True)
class Tally:
    """What was sent, what came back, and what is wrong with it."""

    sent: Counter[str] = field(default_factory=Counter)
    """By what was done to it."""
    kinds: Counter[str] = field(default_factory=Counter)
    """By what it was made from."""
    answers: Counter[str] = field(default_factory=Counter)
    closes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def find(self, what: str) -> None:
        """Note something that must not be.

        Raises:
            TooManyFindings: the last of so many.
        """
        self.findings.append(what)
        if len(self.findings) >= MAX_FINDINGS:
            raise TooManyFindings


def find_leak(text: str, product: Product) -> str | None:
    """What in an error's text says more than the peer may know."""
    match = SECRETS.search(text)
    if match is not None:
        return match.group()
    # What was sent may come back as the name of something that there is not; these were never sent.
    secrets = (str(product.data_dir), str(PROJECT_ROOT), product.agent_api_key, product.operator_password)
    return next((secret for secret in secrets if secret in text), None)


def judge_error(payload: Any, product: Product) -> str | None:
    """What is wrong with an error's payload."""
    if not isinstance(payload, dict) or set(payload) != ERROR_FIELDS:
        return "an error has other fields"
    if payload["code"] == "system.internal":
        return f"system.internal, trace id {payload['trace_id']}"
    text = json.dumps(payload)
    if len(text) > MAX_ERROR_BYTES:
        return f"an error of {len(text)} bytes"
    leak = find_leak(text, product)
    return None if leak is None else f"an error tells {leak!r}"


def decode(data: bytes, encoding: Encoding) -> Any:
    """What is encoded; ``None`` for what is not."""
    try:
        return json.loads(data) if encoding is Encoding.JSON else msgspec.msgpack.decode(data)
    except (ValueError, msgspec.DecodeError):
        return None


def judge_message(value: Any, product: Product) -> tuple[str, str | None]:
    """What an answer is (its code, or its type), and what is wrong with it."""
    try:
        message_type, payload = value["type"], value["payload"]
    except (KeyError, TypeError):
        return "unreadable", "an answer is no message"
    if (value.get("security") or {}).get("encryption_info") is not None:
        # By chance a mutated handshake agreed on keys that nobody kept; what is inside is only the server's to know.
        return "sealed", None
    if message_type not in TYPES:
        return "unreadable", f"an answer of type {message_type!r}"
    if message_type != "error":
        return str(message_type), None
    fault = judge_error(payload, product)
    return str(payload.get("code", "error")) if isinstance(payload, dict) else "error", fault


def read_logs(product: Product) -> dict[Path, int]:
    """How long each log is now."""
    return {path: path.stat().st_size for path in [*sorted(product.data_dir.glob("log/*.log")), product.output_path]}


def list_failures(product: Product, since: dict[Path, int]) -> list[str]:
    """The lines that the logs have got since that tell of a defect."""
    found = []
    for path in read_logs(product):
        with path.open("rb") as log:
            log.seek(since.get(path, 0))
            lines = log.read().decode(errors="replace").splitlines()
        for number, line in enumerate(lines):
            if FAILURES.search(line):
                found.append(f"{path.name}: {' | '.join(lines[number : number + 30])[:3_000]}")
    return found

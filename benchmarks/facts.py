"""What a database that ``filling`` filled has in it, as far as questions name it; what ``inside`` is told and tells."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Final

import msgspec

LARGE: Final = "agent-large"
"""The account with most of the runs."""
SMALL: Final = "agent-small"
"""The account with a handful."""
VIEWER: Final = "viewer"
"""The account that sees all runs by API."""
OPERATOR: Final = "benchmark-operator"
"""The account that is signed in to the console."""
COMMON_TOOL: Final = "text.count_words"
RARE_TOOL: Final = "files.search"
UNUSED_TOOL: Final = "archive.tool_00"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    rows: int
    keys: dict[str, str]
    """API keys by account."""
    password: str
    """The operator's."""
    account_ids: dict[str, uuid.UUID]
    tool_ids: dict[str, uuid.UUID]
    version_id: uuid.UUID
    """Of ``COMMON_TOOL``."""
    first_at: datetime
    last_at: datetime
    run_id: uuid.UUID
    """A newer run, with a timeline."""
    old_run_id: uuid.UUID
    trace_id: str
    message_id: str
    session_id: uuid.UUID


class Filling(msgspec.Struct, frozen=True, kw_only=True):
    """What ``inside fill`` is told on its standard input."""

    rows: int
    only: str
    """A regular expression: the questions whose queries are counted."""


class Queries(msgspec.Struct, frozen=True, kw_only=True):
    """How many queries a question takes."""

    small: int
    full: int


class Filled(msgspec.Struct, frozen=True, kw_only=True):
    """What ``inside fill`` tells on its standard output."""

    facts: Facts
    seconds: float
    rows_small: int
    queries: dict[str, Queries]
    faults: list[str]

"""What `serve` hands to its supervisor: which processes to keep, and all that the supervisor must know of them.

The supervisor runs without Django, so that it stays small: what it needs is worked out before and written here as JSON.
No secret belongs in it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

# Web and worker drain together: the callers' answers come from runs that end, and both have the whole time for it.
WEB_STAGE = WORKER_STAGE = 0
SCHEDULER_STAGE, BROKER_STAGE = 1, 2
"""Processes are stopped stage by stage."""
RUN_FILE = "serve.json"
"""In ``<data_dir>/run/`` while all is ready."""


class ProcessPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One process to keep alive."""

    name: str
    """As on its log lines: ``web.1``."""
    command: tuple[str, ...]
    stage: int
    inherits_listener: bool = False
    is_shown: bool = True
    """Whether its lines go to the console, or to its file alone."""


class BrokerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The embedded broker."""

    process: ProcessPlan
    socket: str


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where the web processes answer, as this machine reaches them."""

    host: str
    port: int
    has_tls: bool

    @property
    def url(self) -> str:
        return f"{'https' if self.has_tls else 'http'}://{self._netloc}/"

    @property
    def websocket_url(self) -> str:
        return f"{'wss' if self.has_tls else 'ws'}://{self._netloc}/ws/"

    @property
    def _netloc(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the supervisor needs."""

    data_dir: str
    lock_descriptor: int
    listener_descriptor: int
    address: Address
    broker: BrokerPlan | None
    processes: tuple[ProcessPlan, ...]
    drain_seconds: float
    banner: tuple[tuple[str, str], ...]
    """Rows to print once ready: what, where."""
    first_run_dir: str | None
    """Set when this start made the first accounts: their secrets are printed once, from these files."""


def write_plan(plan: Plan, *, path: Path) -> None:
    """Write the plan as JSON that only the owner can read."""
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.encode(plan))


def read_plan(path: Path) -> Plan:
    """The plan of a file that `write_plan` wrote."""
    return msgspec.json.decode(path.read_bytes(), type=Plan)

"""A million believable runs in a database, with what belongs to them: accounts, tools, sessions, audit events.

Rows are written past the services, in bulk: what is measured is reading them. What is decided by chance is the same in
every run, but for the keys.
"""

from __future__ import annotations

import random
import secrets
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import msgspec
from django.db import connection, transaction
from django.db.models import Model
from django.utils import timezone

from benchmarks.facts import COMMON_TOOL, LARGE, OPERATOR, RARE_TOOL, SMALL, VIEWER, Facts
from protocol.domain.messages import Priority
from protocol.models import Session
from security.models import Account, AuditEvent
from security.services import create_account, issue_api_key
from tools.domain.states import TERMINAL_STATES, ExecutionState
from tools.models import Execution, ExecutionEvent, Tool, ToolVersion, WorkerLease

SPAN: Final = timedelta(days=30)
CHUNK: Final = 5_000
"""Rows handed to the database at once."""
SMALL_RUNS: Final = 12
"""Of the account that has a handful of them, and of the tool that is hardly used; spread over the time."""
SESSIONS: Final = 3_000
"""Of each filling."""
SESSIONS_SPAN: Final = timedelta(days=6)
"""The product forgets those that ended a week ago."""
OLD_TOOLS: Final = 60
"""Tools whose code is gone, so that the list of tools has more than a page."""
TIMELINES: Final = 0.02
"""The share of runs that have their timeline's three events; the newest."""
FAR: Final = timedelta(days=3650)
"""When what waits may be tried, and the lease of what runs lapses: no worker of the product takes these runs."""
WORKER: Final = "benchmark@nowhere"
SHARES: Final = {LARGE: 60.0, "agent-middle": 20.0, "agent-other": 14.0, OPERATOR: 1.0}
"""Of the runs, in percent, by account; the rest is that of ``LITTLE_ACCOUNTS``."""
LITTLE_ACCOUNTS: Final = 20
TOOL_SHARES: Final = {COMMON_TOOL: 55.0, "text.search": 20.0, "files.read": 15.0, "files.list": 10.0}
STATE_SHARES: Final = {
    ExecutionState.SUCCEEDED: 93.0,
    ExecutionState.FAILED: 4.0,
    ExecutionState.TIMED_OUT: 1.2,
    ExecutionState.CANCELLED: 1.0,
    ExecutionState.INTERRUPTED: 0.795,
    ExecutionState.REJECTED: 0.005,
}
UNFINISHED: Final = {ExecutionState.QUEUED: 20, ExecutionState.RUNNING: 8, ExecutionState.AWAITING_APPROVAL: 5}
"""Of the newest runs, how many are in these states."""
PRIORITY_SHARES: Final = {Priority.NORMAL: 90.0, Priority.HIGH: 6.0, Priority.LOW: 3.9, Priority.URGENT: 0.1}
RARE_ACTION_EVERY: Final = 50_000
CLIENTS: Final = ("shell", "editor", "nightly", "")


class Cast(msgspec.Struct, frozen=True, kw_only=True):
    """Who acts on what."""

    accounts: dict[str, uuid.UUID]
    keys: dict[str, str]
    password: str
    tools: dict[str, tuple[uuid.UUID, uuid.UUID, str]]
    """Id, version's id and definition hash by name."""


def prepare() -> Cast:
    """Accounts with keys, and tools, of a database that has been migrated and has the product's own tools."""
    accounts = {}
    keys = {}
    names = [LARGE, SMALL, "agent-middle", "agent-other", *(f"agent-{number:02}" for number in range(LITTLE_ACCOUNTS))]
    with transaction.atomic():
        for name in names:
            account = create_account(username=name, kind=Account.Kind.SERVICE, roles=["agent"])
            accounts[name] = account.id
            keys[name] = issue_api_key(account=account, name="benchmark").secret
        viewer = create_account(username=VIEWER, kind=Account.Kind.SERVICE, roles=["viewer"])
        keys[VIEWER] = issue_api_key(account=viewer, name="benchmark").secret
        password = secrets.token_urlsafe(24)
        operator = create_account(
            username=OPERATOR, password=password, is_staff=True, is_superuser=True, roles=["operator"]
        )
        accounts[OPERATOR] = operator.id
        tools = {
            tool.name: (tool.id, tool.current_version.id, tool.current_version.definition_hash)
            for tool in Tool.objects.select_related("current_version").exclude(current_version=None)
            if tool.current_version is not None
        }
        for number in range(OLD_TOOLS):
            tool = Tool.objects.create(name=f"archive.tool_{number:02}")
            tool.current_version = ToolVersion.objects.create(
                tool=tool,
                version="1.0.0",
                description="A tool whose code is gone.",
                input_schema={"type": "object"},
                output_schema={},
                adapter="python",
                entry_point="archive:tool",
                definition_hash=f"{number:064x}",
                state=ToolVersion.State.UNAVAILABLE,
            )
            tool.save(update_fields=["current_version"])
    return Cast(accounts=accounts, keys=keys, password=password, tools=tools)


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """What is drawn for one run."""

    at: datetime
    account: str
    tool: str
    state: ExecutionState
    priority: Priority


def fill(cast: Cast, *, rows: int, seed: int) -> None:
    """Add so many runs, as old as ``SPAN`` at most, with audit events, timelines and sessions."""
    chance = random.Random(seed)  # noqa: S311  # draws examples
    now = timezone.now()
    WorkerLease.objects.get_or_create(name=WORKER, defaults={"host": "nowhere", "pid": 1, "expires_at": now + FAR})
    sessions = list(make_sessions(cast, chance=chance, now=now, count=min(SESSIONS, rows)))
    write(Session, sessions)
    session_ids = [row[0] for row in sessions]
    moments = draw_moments(chance, rows=rows, now=now)
    timelines_from = int(rows * (1 - TIMELINES))
    for first in range(0, rows, CHUNK * 10):
        runs: list[tuple[Any, ...]] = []
        events: list[tuple[Any, ...]] = []
        audited: list[tuple[Any, ...]] = []
        for number, moment in enumerate(islice(moments, CHUNK * 10), first):
            run = make_run(cast, moment, chance=chance, session_id=session_ids[number % len(session_ids)])
            runs.append(run)
            audited.append(make_audit_event(cast, moment, run_id=run[0], chance=chance, number=number))
            if number >= timelines_from:
                events.extend(make_timeline(run[0], moment))
        with transaction.atomic():
            write(Execution, runs)
            write(AuditEvent, audited)
            write(ExecutionEvent, events, leave_out="id")


def draw_moments(chance: random.Random, *, rows: int, now: datetime) -> Iterator[Moment]:
    """The runs, the oldest first."""
    accounts = dict(SHARES) | {
        f"agent-{number:02}": (100 - sum(SHARES.values())) / LITTLE_ACCOUNTS for number in range(LITTLE_ACCOUNTS)
    }
    # As many beside the drawn ones: what is rare comes in every part of the time, and first in the oldest.
    every = max(1, rows // SMALL_RUNS)
    unfinished = [state for state, count in UNFINISHED.items() for _ in range(min(count, rows // 20))]
    chance.shuffle(unfinished)
    step = SPAN / rows
    for first in range(0, rows, CHUNK):
        count = min(CHUNK, rows - first)
        drawn = zip(
            draw(chance, accounts, count),
            draw(chance, TOOL_SHARES, count),
            draw(chance, STATE_SHARES, count),
            draw(chance, PRIORITY_SHARES, count),
            strict=True,
        )
        for number, (account, tool, state, priority) in enumerate(drawn, first):
            left = rows - number
            yield Moment(
                at=now - SPAN + step * (number + chance.random()),
                account=SMALL if number % every == every // 2 else account,
                tool=RARE_TOOL if number % every == every // 3 else tool,
                state=unfinished[left // 3] if left % 3 == 0 and left // 3 < len(unfinished) else state,
                priority=priority,
            )


def draw(chance: random.Random, shares: Mapping[Any, float], count: int) -> list[Any]:
    return chance.choices(list(shares), weights=list(shares.values()), k=count)


def make_run(cast: Cast, moment: Moment, *, chance: random.Random, session_id: str) -> tuple[Any, ...]:
    """A row of ``Execution``."""
    tool_id, version_id, definition_hash = cast.tools[moment.tool]
    is_waiting = moment.state in (ExecutionState.QUEUED, ExecutionState.AWAITING_APPROVAL)
    is_over = moment.state in TERMINAL_STATES
    identifier = make_id(moment.at, chance)
    started_at = moment.at + timedelta(milliseconds=chance.randrange(2, 40))
    has_succeeded = moment.state is ExecutionState.SUCCEEDED
    text = " ".join(("lorem", "ipsum", "dolor")[: 1 + identifier.fields[0] % 3])
    digest = f"{chance.getrandbits(256):064x}"
    values: dict[str, Any] = {
        "id": identifier.hex,
        "tool_id": tool_id.hex,
        "version_id": version_id.hex,
        "definition_hash": definition_hash,
        "state": moment.state.value,
        "mode": "queue" if chance.random() < 0.3 else "wait",
        "priority": moment.priority.value,
        "attempt": 0 if is_waiting else 1,
        "input_json": f'{{"text":"{text}"}}',
        "input_hash": digest,
        "output_json": '{"characters":17,"lines":1,"words":3}' if has_succeeded else None,
        "error_json": "" if has_succeeded or not is_over else '{"code":"tool.execution_failed","message":"It failed."}',
        "event_count": 1 if is_waiting else 2 + is_over,
        "progress_message": "",
        "requested_by_id": cast.accounts[moment.account].hex,
        "session_id": session_id,
        "message_id": f"m-{chance.getrandbits(64):016x}",
        "idempotency_key": "",
        "arguments_hash": digest,
        "trace_id": f"{chance.getrandbits(128):032x}",
        "timeout_seconds": 600.0,
        "worker": "" if is_waiting else WORKER,
        "not_before": format_time(moment.at + FAR) if is_waiting else None,
        "cancel_mode": "",
        "created_at": format_time(moment.at),
        "started_at": None if is_waiting else format_time(started_at),
        "finished_at": format_time(started_at + timedelta(milliseconds=chance.randrange(1, 900))) if is_over else None,
    }
    return order_values(Execution, values)


def make_timeline(run_id: str, moment: Moment) -> Iterator[tuple[Any, ...]]:
    """Rows of ``ExecutionEvent``, without the id that the database gives."""
    states = [ExecutionState.QUEUED.value]
    if moment.state not in (ExecutionState.QUEUED, ExecutionState.AWAITING_APPROVAL):
        states.append(ExecutionState.RUNNING.value)
    if moment.state in TERMINAL_STATES:
        states.append(moment.state.value)
    for position, state in enumerate(states, 1):
        values = {
            "execution_id": run_id,
            "position": position,
            "kind": "state",
            "data_json": f'{{"state":"{state}","attempt":{min(position - 1, 1)}}}',
            "at": format_time(moment.at + timedelta(milliseconds=20 * position)),
        }
        yield order_values(ExecutionEvent, values, leave_out="id")


def make_audit_event(cast: Cast, moment: Moment, *, run_id: str, chance: random.Random, number: int) -> tuple[Any, ...]:
    """A row of ``AuditEvent``: a run's acceptance or its end, and now and then a tool that was switched off."""
    is_switch, is_end = number % RARE_ACTION_EVERY == RARE_ACTION_EVERY // 5, number % 2 == 1
    actor = OPERATOR if is_switch else moment.account
    has_actor = is_switch or not is_end
    action = "tools.disable" if is_switch else "execution.ended" if is_end else "tools.execute"
    has_tool = is_switch or not is_end
    values = {
        "id": make_id(moment.at, chance).hex,
        "at": format_time(moment.at),
        "actor_id": cast.accounts[actor].hex if has_actor else None,
        "actor_name": actor if has_actor else "",
        "credential_id": cast.accounts[actor].hex if has_actor else None,
        "action": action,
        "resource_kind": "tool" if has_tool else "execution",
        "resource_name": moment.tool if has_tool else str(uuid.UUID(run_id)),
        "outcome": "done" if is_switch else moment.state.value if is_end else "accepted",
        "trace_id": f"{chance.getrandbits(128):032x}",
        "data_json": "{}",
    }
    return order_values(AuditEvent, values)


def make_sessions(cast: Cast, *, chance: random.Random, now: datetime, count: int) -> Iterator[tuple[Any, ...]]:
    """Rows of ``Session``, all ended: a connected one would need its process."""
    names = [name for name in cast.accounts if name != OPERATOR]
    for number in range(count):
        at = now - SESSIONS_SPAN * (1 - number / count)
        values = {
            "id": make_id(at, chance).hex,
            "account_id": cast.accounts[names[number % len(names)]].hex,
            "credential_id": cast.accounts[names[number % len(names)]].hex,
            "channel": "specific.gone",
            "client_name": CLIENTS[number % len(CLIENTS)],
            "client_version": "1.0",
            "remote_address": f"10.0.{number // 250 % 250}.{1 + number % 250}",
            "address_key": f"10.0.{number // 250 % 250}.{1 + number % 250}",
            "security_level": "standard",
            "last_sequence": 40,
            "acknowledged_sequence": 40,
            "created_at": format_time(at),
            "seen_at": format_time(at + timedelta(minutes=5)),
            "ended_at": format_time(at + timedelta(minutes=5)),
            "close_code": 1000 if number % 3 else 1006,
        }
        yield order_values(Session, values)


def make_id(at: datetime, chance: random.Random) -> uuid.UUID:
    """A UUID version 7 of that moment (RFC 9562)."""
    milliseconds = int(at.timestamp() * 1000)
    return uuid.UUID(
        int=milliseconds << 80 | 0x7 << 76 | chance.getrandbits(12) << 64 | 0b10 << 62 | chance.getrandbits(62)
    )


def format_time(at: datetime) -> str:
    """As SQLite's column has it; PostgreSQL reads it too, as its connections are in UTC."""
    return at.strftime("%Y-%m-%d %H:%M:%S.%f")


def order_values(model: type[Model], values: Mapping[str, Any], *, leave_out: str = "") -> tuple[Any, ...]:
    """The values in the order of the model's columns; what is missing is null."""
    return tuple(values.get(name) for name in list_columns(model, leave_out))


@lru_cache(maxsize=8)
def list_columns(model: type[Model], leave_out: str) -> tuple[str, ...]:
    columns = [field.column for field in model._meta.concrete_fields]
    return tuple(column for column in columns if column and column != leave_out)


def write(model: type[Model], rows: Iterable[tuple[Any, ...]], *, leave_out: str = "") -> None:
    """Insert the rows as fast as the database takes them."""
    table = connection.ops.quote_name(model._meta.db_table)
    columns = list_columns(model, leave_out)
    names = ", ".join(connection.ops.quote_name(column) for column in columns)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with cursor.cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        else:
            marks = ", ".join("?" * len(columns))
            # Past Django's cursor, which would look for its own placeholders in each row.
            connection.connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)  # noqa: S608  # our own names


def find_facts(cast: Cast, *, rows: int) -> Facts:
    """What requests ask for, as the database has it now."""
    runs = Execution.objects.order_by("-created_at")
    ended = runs.filter(state=ExecutionState.SUCCEEDED.value, requested_by_id=cast.accounts[LARGE])
    newest, oldest = ended.first(), ended.last()
    last, first = runs.first(), runs.last()
    assert newest is not None
    assert oldest is not None
    assert last is not None
    assert first is not None
    assert newest.session_id is not None
    return Facts(
        rows=rows,
        keys=cast.keys,
        password=cast.password,
        account_ids=cast.accounts,
        tool_ids={name: ids[0] for name, ids in cast.tools.items()},
        version_id=cast.tools[COMMON_TOOL][1],
        first_at=first.created_at,
        last_at=last.created_at,
        run_id=newest.id,
        old_run_id=oldest.id,
        trace_id=newest.trace_id,
        message_id=newest.message_id,
        session_id=newest.session_id,
    )

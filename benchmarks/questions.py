"""What the lists' benchmark asks for, of a database that ``filling`` filled, and what makes an answer right."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlencode

import msgspec

from benchmarks.facts import COMMON_TOOL, LARGE, OPERATOR, RARE_TOOL, SMALL, UNUSED_TOOL, VIEWER, Facts

RUNS: Final = "/api/v1/executions/"
SMALL_ROWS: Final = 500_000
"""With fewer there may be none of what is rare."""
CONSOLE: Final = "/admin/"
RUNS_PAGE: Final = f"{CONSOLE}tools/execution/"
AUDIT_PAGE: Final = f"{CONSOLE}security/auditevent/"
SESSIONS_PAGE: Final = f"{CONSOLE}protocol/session/"
TOOLS_PAGE: Final = f"{CONSOLE}tools/tool/"
COUNT: Final = re.compile(rb"<div class=\"py-4\">\s*(\d+)\s")
"""What a list of the console says below it."""
Query = Mapping[str, str] | Sequence[tuple[str, str]]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One GET request."""

    name: str
    account: str
    """By whose API key; of the console by whose session."""
    path: str
    query: tuple[tuple[str, str], ...] = ()
    is_empty: bool = False
    """Whether a right answer has no rows."""
    is_rare: bool = False
    """Whether a right answer has no rows perhaps, in a small database."""
    names: str = ""
    """What stands in a right answer."""
    cursor_of: tuple[tuple[str, str], ...] | None = None
    """The query of the page whose ``next_cursor`` is the cursor."""

    @property
    def is_console(self) -> bool:
        return self.path.startswith(CONSOLE)

    def make_target(self, cursor: str | None = None) -> str:
        """Path and query."""
        query = [*self.query, *([] if cursor is None else [("cursor", cursor)])]
        return f"{self.path}?{urlencode(query)}" if query else self.path

    def make_cursor_target(self) -> str | None:
        """Of the page that gives the cursor; ``None`` where there is none."""
        return None if self.cursor_of is None else f"{self.path}?{urlencode(self.cursor_of)}"


def list_questions(facts: Facts, *, only: str = "") -> list[Question]:
    """Those whose name the regular expression finds, in the order in which they are shown."""
    every = (*_list_rest(facts), *_list_runs_pages(facts), *_list_other_pages(facts))
    return [question for question in every if re.search(only, question.name)]


def find_fault(question: Question, *, status: int, body: bytes) -> str | None:
    """What is wrong with an answer; ``None``: nothing."""
    if status != 200:
        return f"status {status}"
    if question.names and question.names.encode() not in body:
        return f"{question.names} is missing"
    if question.is_console:
        count = COUNT.search(body)
        return None if count is None else _find_fault_of_count(question, int(count[1]))
    return _find_fault_of_page(question, body) if question.path == RUNS else None


def read_cursor(body: bytes) -> str:
    """The cursor of the next page."""
    cursor = msgspec.json.decode(body)["next_cursor"]
    assert isinstance(cursor, str)
    return cursor


def _find_fault_of_page(question: Question, body: bytes) -> str | None:
    runs = msgspec.json.decode(body)["executions"]
    wanted: dict[str, set[str]] = {}
    for name, value in question.query:
        wanted.setdefault(name, set()).add(value)
    fault = _find_fault_of_count(question, len(runs))
    if fault is not None:
        return fault
    for name in ("tool", "state", "requested_by"):
        if name in wanted and any(run[name] not in wanted[name] for run in runs):
            return f"a row of another {name}"
    times = [datetime.fromisoformat(run["created_at"]) for run in runs]
    if times != sorted(times, reverse="order" not in wanted):
        return "rows out of order"
    return None


def _find_fault_of_count(question: Question, count: int) -> str | None:
    is_right = not count if question.is_empty else count or question.is_rare
    return None if is_right else f"{count} rows"


def _list_rest(facts: Facts) -> Iterator[Question]:
    middle = facts.first_at + (facts.last_at - facts.first_at) / 2
    week = {"created_from": _format(middle), "created_before": _format(middle + timedelta(days=7))}
    oldest = {"order": "created_at"}
    is_small = facts.rows < SMALL_ROWS
    common: list[tuple[str, Query, Query | None]] = [
        ("first page", {}, None),
        ("200 rows", {"limit": "200"}, None),
        ("oldest first", oldest, None),
        ("deep page", {}, {"created_before": _format(middle), "limit": "1"}),
        ("deep page, oldest first", oldest, {"created_from": _format(middle), "limit": "1", **oldest}),
        ("tool", {"tool": COMMON_TOOL}, None),
        ("state succeeded", {"state": "succeeded"}, None),
        ("a week", week, None),
        ("a week, tool", {**week, "tool": COMMON_TOOL}, None),
    ]
    rare: list[tuple[str, Query, Query | None]] = [
        ("rare tool", {"tool": RARE_TOOL}, None),
        ("rare tool, oldest first", {"tool": RARE_TOOL, **oldest}, None),
        ("state failed", {"state": "failed"}, None),
        ("state rejected", {"state": "rejected"}, None),
        ("state rejected, oldest first", {"state": "rejected", **oldest}, None),
        ("state rejected, deep page", {"state": "rejected"}, {"created_before": _format(middle), "limit": "1"}),
        ("states rejected, timed_out", (("state", "rejected"), ("state", "timed_out")), None),
        ("tool, state rejected", {"tool": COMMON_TOOL, "state": "rejected"}, None),
        ("a week, state rejected", {**week, "state": "rejected"}, None),
        ("all time, state rejected", {"state": "rejected", "created_from": _format(facts.first_at)}, None),
        ("oldest two hours", {"created_before": _format(facts.first_at + timedelta(hours=2))}, None),
    ]
    unfinished: list[tuple[str, Query, Query | None]] = [
        ("state queued", {"state": "queued"}, None),
        ("state queued, oldest first", {"state": "queued", **oldest}, None),
        ("states not over", (("state", "queued"), ("state", "running"), ("state", "awaiting_approval")), None),
    ]
    by: list[tuple[str, Query, Query | None]] = [
        ("by the large agent", {"requested_by": LARGE}, None),
        ("by the small agent", {"requested_by": SMALL}, None),
        ("by the small agent, oldest first", {"requested_by": SMALL, **oldest}, None),
        ("by the large agent, rare tool", {"requested_by": LARGE, "tool": RARE_TOOL}, None),
        ("by the small agent, tool", {"requested_by": SMALL, "tool": COMMON_TOOL}, None),
        ("by the large agent, state rejected", {"requested_by": LARGE, "state": "rejected"}, None),
        (
            "by the large agent, tool, state rejected",
            {"requested_by": LARGE, "tool": COMMON_TOOL, "state": "rejected"},
            None,
        ),
        (
            "by the operator, tool, state failed, a week",
            {**week, "requested_by": OPERATOR, "tool": "text.search", "state": "failed"},
            None,
        ),
    ]
    nothing: list[tuple[str, Query, Query | None]] = [
        ("unused tool", {"tool": UNUSED_TOOL}, None),
        ("rare tool, state rejected", {"tool": RARE_TOOL, "state": "rejected"}, None),
        ("small agent, rare tool", {"tool": RARE_TOOL, "requested_by": SMALL}, None),
    ]
    for account, shown, cases, is_empty, is_rare in (
        (VIEWER, "who sees all", common, False, False),
        (VIEWER, "who sees all", (*rare, *unfinished, *by), False, is_small),
        (VIEWER, "who sees all", nothing, True, False),
        (LARGE, "large agent", common, False, False),
        (LARGE, "large agent", (*rare, *unfinished), False, is_small),
        (LARGE, "large agent", nothing[:2], True, False),
        (SMALL, "small agent", common, False, True),
        (SMALL, "small agent", rare[:1], True, False),
        (SMALL, "small agent", unfinished, False, True),
    ):
        for name, query, cursor_of in cases:
            yield Question(
                name=f"REST runs, {shown}: {name}",
                account=account,
                path=RUNS,
                query=_freeze(query),
                is_empty=is_empty,
                is_rare=is_rare,
                cursor_of=None if cursor_of is None else _freeze(cursor_of),
            )
    run_id = str(facts.run_id)
    yield Question(name="REST run", account=LARGE, path=f"{RUNS}{run_id}/", names=run_id)
    yield Question(name="REST tools", account=LARGE, path="/api/v1/tools/", names=UNUSED_TOOL)


def _list_runs_pages(facts: Facts) -> Iterator[Question]:
    middle = facts.first_at + (facts.last_at - facts.first_at) / 2
    tool, rare_tool = (str(facts.tool_ids[name]) for name in (COMMON_TOOL, RARE_TOOL))
    large, small = (str(facts.account_ids[name]) for name in (LARGE, SMALL))
    day = {"created_at_from_0": f"{middle:%Y-%m-%d}", "created_at_to_0": f"{middle:%Y-%m-%d}"}
    cases: list[tuple[str, Query, str]] = [
        ("plain", {}, ""),
        ("deep page", {"p": _choose_page(facts)}, ""),
        ("oldest first", {"o": "6"}, ""),
        ("state succeeded", {"state": "succeeded"}, ""),
        ("state failed", {"state": "failed"}, ""),
        ("state rejected", {"state": "rejected"}, ""),
        ("state queued", {"state": "queued"}, ""),
        ("states not over", (("state", "queued"), ("state", "running")), ""),
        ("tool", {"tool__id__exact": tool}, ""),
        ("rare tool", {"tool__id__exact": rare_tool}, ""),
        ("tool, version", {"tool__id__exact": tool, "version": str(facts.version_id)}, ""),
        ("large account", {"requested_by__id__exact": large}, ""),
        ("small account", {"requested_by__id__exact": small}, ""),
        ("priority normal", {"priority": "normal"}, ""),
        ("priority urgent", {"priority": "urgent"}, ""),
        ("mode", {"mode__exact": "queue"}, ""),
        ("a day", day, ""),
        ("tool, state rejected", {"tool__id__exact": tool, "state": "rejected"}, ""),
        ("tool, priority urgent", {"tool__id__exact": tool, "priority": "urgent"}, ""),
        ("tool, mode, priority urgent", {"tool__id__exact": tool, "mode__exact": "queue", "priority": "urgent"}, ""),
        (
            "tool, version, state rejected",
            {"tool__id__exact": tool, "version": str(facts.version_id), "state": "rejected"},
            "",
        ),
        ("large account, state rejected", {"requested_by__id__exact": large, "state": "rejected"}, ""),
        ("large account, priority urgent", {"requested_by__id__exact": large, "priority": "urgent"}, ""),
        ("large account, mode", {"requested_by__id__exact": large, "mode__exact": "queue"}, ""),
        ("large account, tool", {"requested_by__id__exact": large, "tool__id__exact": tool}, ""),
        ("large account, rare tool", {"requested_by__id__exact": large, "tool__id__exact": rare_tool}, ""),
        ("a day, state failed, priority normal", {**day, "state": "failed", "priority": "normal"}, ""),
        ("priority urgent, state failed", {"priority": "urgent", "state": "failed"}, ""),
        ("search by id", {"q": str(facts.run_id)}, str(facts.run_id)),
        ("search by an id's beginning", {"q": str(facts.old_run_id)[:13]}, str(facts.old_run_id)),
        ("search by trace", {"q": facts.trace_id}, str(facts.run_id)),
        ("search by message", {"q": facts.message_id}, str(facts.run_id)),
        ("search by session", {"q": str(facts.session_id)}, ""),
        ("search by tool", {"q": "count"}, ""),
        ("search by account", {"q": "agent"}, ""),
        ("search by account, state rejected", {"q": LARGE, "state": "rejected"}, ""),
        ("search by tool, priority urgent", {"q": "count", "priority": "urgent"}, ""),
    ]
    for name, query, names in cases:
        yield _make_console(f"console runs: {name}", RUNS_PAGE, query, names=names, is_rare=facts.rows < SMALL_ROWS)
    yield _make_console("console runs: search for nothing", RUNS_PAGE, {"q": "no-such-thing"}, is_empty=True)
    for shown, run_id in (("new", facts.run_id), ("old", facts.old_run_id)):
        yield _make_console(f"console run: {shown}", f"{RUNS_PAGE}{run_id}/change/", {}, names=str(run_id))


def _list_other_pages(facts: Facts) -> Iterator[Question]:
    audit: list[tuple[str, Query]] = [
        ("plain", {}),
        ("deep page", {"p": _choose_page(facts)}),
        ("oldest first", {"o": "0"}),
        ("action", {"action": "execution.ended"}),
        ("action's beginning", {"action": "execution."}),
        ("rare action", {"action": "tools.disable"}),
        ("outcome", {"outcome": "succeeded"}),
        ("rare outcome", {"outcome": "rejected"}),
        ("account", {"actor": LARGE}),
        ("small account", {"actor": SMALL}),
        ("account, rare outcome", {"actor": OPERATOR, "outcome": "done"}),
        ("action, rare outcome", {"action": "execution.ended", "outcome": "rejected"}),
        ("search by tool", {"q": COMMON_TOOL}),
        ("search by account", {"q": LARGE}),
        ("search by small account", {"q": SMALL}),
        ("search by part of a name", {"q": "small"}),
    ]
    for name, query in audit:
        yield _make_console(f"console audit: {name}", AUDIT_PAGE, query, is_rare=facts.rows < SMALL_ROWS)
    for name, query in (
        ("unknown action", {"action": "contexts."}),
        ("unknown outcome", {"outcome": "denied"}),
        ("account, unknown outcome", {"actor": LARGE, "outcome": "denied"}),
        ("search for nothing", {"q": "no-such-thing"}),
        ("search by an unknown trace", {"q": "0" * 32}),
    ):
        yield _make_console(f"console audit: {name}", AUDIT_PAGE, query, is_empty=True)
    sessions: list[tuple[str, Query]] = [
        ("plain", {}),
        ("ended", {"connected": "no"}),
        ("search by client", {"q": "shell"}),
        ("search by account", {"q": SMALL}),
        ("search by address", {"q": "10.0.0."}),
        ("search by id", {"q": str(facts.session_id)}),
    ]
    for name, query in sessions:
        yield _make_console(f"console sessions: {name}", SESSIONS_PAGE, query)
    yield _make_console("console sessions: connected", SESSIONS_PAGE, {"connected": "yes"}, is_empty=True)
    for name, query in (
        ("plain", {}),
        ("state", {"state": "enabled"}),
        ("search", {"q": "archive"}),
        ("page 2", {"p": "2"}),
    ):
        yield _make_console(f"console tools: {name}", TOOLS_PAGE, query)
    tool = f"{TOOLS_PAGE}{facts.tool_ids[COMMON_TOOL]}/change/"
    yield _make_console("console tool", tool, {}, names=COMMON_TOOL)
    session = f"{SESSIONS_PAGE}{facts.session_id}/change/"
    yield _make_console("console session", session, {}, names=str(facts.session_id))
    yield _make_console("console overview", CONSOLE, {}, names="Runs in 24 h")


def _choose_page(facts: Facts) -> str:
    """The hundredth, of 50 rows each, or the last that a small database has."""
    return str(min(100, facts.rows // 50))


def _make_console(
    name: str, path: str, query: Query, *, is_empty: bool = False, is_rare: bool = False, names: str = ""
) -> Question:
    return Question(
        name=name, account=OPERATOR, path=path, query=_freeze(query), is_empty=is_empty, is_rare=is_rare, names=names
    )


def _freeze(query: Query) -> tuple[tuple[str, str], ...]:
    return tuple(query.items()) if isinstance(query, Mapping) else tuple(query)


def _format(at: datetime) -> str:
    return at.isoformat()

"""Lists of runs as callers see them: filtered, in pages by a cursor, never more work than a few hundred rows a page."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from datetime import datetime

from django.db.models import Q, QuerySet
from msgspec import Struct

from protocol import ports
from protocol.domain.cursors import Position, decode_cursor, encode_cursor
from protocol.ports import Principal
from security.selectors import find_account_id
from tools.domain.states import ExecutionState
from tools.models import Execution, Tool
from tools.selectors.console import filter_executions_by_state, select_execution_rows
from tools.selectors.executions import VIEW_EXECUTIONS, ProgressView, get_progress, may_act

MAX_READS = 5
"""How often a page's worth of rows is read for one page, where the principal may not see them all: then the page is
short, and its cursor goes on."""


class ExecutionOrder(enum.StrEnum):
    """By the time of acceptance."""

    NEWEST_FIRST = "-created_at"
    OLDEST_FIRST = "created_at"


class ExecutionFilters(Struct, frozen=True, kw_only=True):
    """Which runs; empty: all."""

    tool: str | None = None
    states: tuple[ExecutionState, ...] = ()
    requested_by: str | None = None
    """An account's name."""
    created_from: datetime | None = None
    created_before: datetime | None = None


class ExecutionSummary(Struct, frozen=True, kw_only=True):
    """A run without its input, outcome and timeline."""

    execution_id: str
    tool: str
    version: str
    state: str
    attempt: int
    progress: ProgressView | None
    requested_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class ExecutionPage(Struct, frozen=True, kw_only=True):
    executions: list[ExecutionSummary]
    next_cursor: str | None


def list_executions(
    *, principal: Principal, filters: ExecutionFilters, order: ExecutionOrder, cursor: str | None, limit: int
) -> ExecutionPage:
    """The runs that the principal may see, in order.

    Raises:
        InvalidArguments: the cursor is none of ours.
    """
    rows = _filter(_select_visible(principal), filters)
    page: list[ExecutionSummary] = []
    last: Position | None = None
    is_done = True
    after = None if cursor is None else decode_cursor(cursor)
    for execution in _iterate(rows, order=order, after=after, size=limit + 1):
        if execution is None or len(page) == limit:
            is_done = False
            break
        last = Position(execution.created_at, execution.id)
        if may_act(principal=principal, action=VIEW_EXECUTIONS, execution=execution):
            page.append(_summarise(execution))
    return ExecutionPage(executions=page, next_cursor=None if is_done or last is None else encode_cursor(last))


def _select_visible(principal: Principal) -> QuerySet[Execution]:
    """What has to be looked at: where only a principal's own can be seen, the others' are not even read."""
    if ports.get_authorizer().reaches_others(principal=principal, action=VIEW_EXECUTIONS, kind="execution"):
        return Execution.objects.all()
    return Execution.objects.filter(requested_by_id=principal.id)


def _filter(rows: QuerySet[Execution], filters: ExecutionFilters) -> QuerySet[Execution]:
    # Names become ids first, so that the planner sees equality on the columns that its indexes have.
    if filters.tool is not None:
        tool_id = Tool.objects.filter(name=filters.tool).values_list("id", flat=True).first()
        rows = rows.none() if tool_id is None else rows.filter(tool_id=tool_id)
    if filters.requested_by is not None:
        account_id = find_account_id(username=filters.requested_by)
        rows = rows.none() if account_id is None else rows.filter(requested_by_id=account_id)
    if filters.states:
        rows = filter_executions_by_state(rows, states=filters.states)
    if filters.created_from is not None:
        rows = rows.filter(created_at__gte=filters.created_from)
    if filters.created_before is not None:
        rows = rows.filter(created_at__lt=filters.created_before)
    return rows


def _iterate(
    rows: QuerySet[Execution], *, order: ExecutionOrder, after: Position | None, size: int
) -> Iterator[Execution | None]:
    """The rows past the position, in order; ``None`` where there are more than are looked at.

    First their keys, which the index has that has the order and the filters; then the rows.
    """
    is_descending = order is ExecutionOrder.NEWEST_FIRST
    names = ("-created_at", "-id") if is_descending else ("created_at", "id")
    for _ in range(MAX_READS):
        past = rows if after is None else rows.filter(_past(after, is_descending))
        keys = list(past.order_by(*names).values_list("created_at", "id")[:size])
        found = select_execution_rows(Execution.objects.all()).in_bulk([identifier for _, identifier in keys])
        # One may have gone meanwhile.
        yield from (found[identifier] for _, identifier in keys if identifier in found)
        if len(keys) < size:
            return
        after = Position(*keys[-1])
    yield None


def _past(position: Position, is_descending: bool) -> Q:  # noqa: FBT001  # private
    at, identifier = position.created_at, position.id
    if is_descending:
        return Q(created_at__lte=at) & (Q(created_at__lt=at) | Q(id__lt=identifier))
    return Q(created_at__gte=at) & (Q(created_at__gt=at) | Q(id__gt=identifier))


def _summarise(execution: Execution) -> ExecutionSummary:
    return ExecutionSummary(
        execution_id=str(execution.id),
        tool=execution.tool.name,
        version=execution.version.version,
        state=execution.state,
        attempt=execution.attempt,
        progress=get_progress(execution),
        requested_by=execution.requested_by.get_username(),
        created_at=execution.created_at,
        started_at=execution.started_at,
        finished_at=execution.finished_at,
    )

"""Runs: the list, which stays fast with a million of them, and the page that shows all of one."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesRadioFilter
from unfold.decorators import display
from unfold.views import ChangeList

from protocol.admin import BoundedChangeList, ReadOnlyAdmin
from protocol.selectors import find_session
from tools import selectors
from tools.admin.filters import CreatedFilter, PriorityFilter, StateFilter, VersionFilter
from tools.admin.labels import EXECUTION_COLOURS, get_state_text, make_label
from tools.domain.timing import describe_duration, get_ran_seconds, get_waited_seconds
from tools.models import Execution

SHORT_ID_LENGTH: Final = 13
"""Of a run's id in lists: the millisecond in which it was made; the search finds a run by it."""


class ExecutionChangeList(BoundedChangeList):
    """Rows without their inputs and outputs, which may have a megabyte each."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Execution]:
        return selectors.select_execution_rows(super().get_queryset(request, exclude_parameters))


@admin.register(Execution)
class ExecutionAdmin(ReadOnlyAdmin):
    list_display = [
        "short_id",
        "tool_version",
        "state_label",
        "requested_by",
        "priority",
        "attempt",
        "created_at",
        "duration",
    ]
    list_filter = [
        StateFilter,
        ("tool", AutocompleteSelectFilter),
        VersionFilter,
        ("requested_by", AutocompleteSelectFilter),
        PriorityFilter,
        ("mode", ChoicesRadioFilter),
        ("created_at", CreatedFilter),
    ]
    # What is searched is the selector's matter; without a field there is no box.
    search_fields = ["id"]
    search_help_text = "Id, tool, account, trace, message, session"
    sortable_by = ["created_at"]
    fieldsets: list[Any] = []

    def get_queryset(self, request: HttpRequest) -> QuerySet[Execution]:
        queryset: QuerySet[Execution] = super().get_queryset(request)
        return queryset.select_related("tool", "version", "requested_by")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ExecutionChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Execution], search_term: str
    ) -> tuple[QuerySet[Execution], bool]:
        term = search_term.strip()
        return (selectors.search_executions(executions=queryset, term=term) if term else queryset), False

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        execution: Execution = context["original"]
        now = timezone.now()
        timeline = selectors.get_timeline(execution=execution)
        context |= {
            "state": make_label(execution.state, colours=EXECUTION_COLOURS),
            "session": find_session(session_id=execution.session_id),
            "waited_seconds": get_waited_seconds(
                created_at=execution.created_at,
                started_at=execution.started_at,
                finished_at=execution.finished_at,
                now=now,
            ),
            "ran_seconds": get_ran_seconds(started_at=execution.started_at, finished_at=execution.finished_at, now=now),
            "timeline": [
                {"event": entry, "state": make_label(entry.state, colours=EXECUTION_COLOURS)}
                for entry in timeline.entries
            ],
            "retries": selectors.list_retries(execution=execution),
            "timeline_left_out": timeline.left_out,
        }
        rendered: HttpResponse = super().render_change_form(request, context, *args, **kwargs)
        return rendered

    @display(description="run")
    def short_id(self, obj: Execution) -> SafeString:
        identifier = str(obj.id)
        return format_html('<span class="mcp-mono" title="{}">{}</span>', identifier, identifier[:SHORT_ID_LENGTH])

    @display(description="tool")
    def tool_version(self, obj: Execution) -> str:
        return f"{obj.tool.name}@{obj.version.version}"

    @display(description="state", label={get_state_text(state): colour for state, colour in EXECUTION_COLOURS.items()})
    def state_label(self, obj: Execution) -> str:
        return get_state_text(obj.state)

    @display(description="ran for")
    def duration(self, obj: Execution) -> str | None:
        seconds = get_ran_seconds(started_at=obj.started_at, finished_at=obj.finished_at, now=timezone.now())
        if seconds is None:
            return None
        return describe_duration(seconds) + ("" if obj.finished_at else " …")

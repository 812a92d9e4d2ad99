"""Runs: the list, which stays fast with a million of them, and the page that shows all of one and can end or repeat it.

What is done with a run goes through the services that answer the protocol's commands, in the name of the account that
is signed in, so that its roles decide and not the console's permissions; those let it see the page.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesRadioFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm
from unfold.views import ChangeList

from protocol import ports
from protocol.admin import BoundedChangeList, ReadOnlyAdmin, get_row, lead_to, tell_refusal
from protocol.errors import MCPError
from protocol.link import make_trace_id
from protocol.selectors import find_session
from security.admin import get_principal
from tools import selectors, services
from tools.admin.filters import CreatedFilter, PriorityFilter, StateFilter, VersionFilter
from tools.admin.labels import EXECUTION_COLOURS, get_state_text, make_label
from tools.admin.live import watch_execution
from tools.domain.supervision import CancelMode
from tools.domain.timing import describe_duration, get_ran_seconds, get_waited_seconds
from tools.models import Execution

SHORT_ID_LENGTH: Final = 13
"""Of a run's id in lists: the millisecond in which it was made; the search finds a run by it."""
MAX_STREAMED_CHARACTERS: Final = 32_768
"""Of what a run streamed; the end."""


class ExecutionChangeList(BoundedChangeList):
    """Rows without their inputs and outputs, which may have a megabyte each."""

    def select_rows(self) -> QuerySet[Execution]:
        return selectors.select_execution_rows(super().select_rows())


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
    list_before_template = "console/refreshing_list.html"
    fieldsets: list[Any] = []
    actions_detail = ["cancel", "kill", "run_again"]

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

    def get_urls(self) -> list[Any]:
        # Asynchronous, so not wrapped as the others are: it looks itself who asks.
        watching = path("<uuid:execution_id>/watch/", watch_execution, name="tools_execution_watch")
        return [watching, *super().get_urls()]

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        try:
            execution_id = uuid.UUID(object_id)
        except ValueError:
            return []
        offered = selectors.list_execution_actions(principal=get_principal(request), execution_id=execution_id)
        names = {f"tools_execution_{each.value}" for each in offered}
        return [each for each in super().get_actions_detail(request, object_id) if each.action_name in names]

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
            "streamed_output": timeline.output[-MAX_STREAMED_CHARACTERS:],
            "may_watch": selectors.may_view_execution(principal=get_principal(request), execution_id=execution.id),
        }
        rendered: HttpResponse = super().render_change_form(request, context, *args, **kwargs)
        return rendered

    @action(
        description="Cancel",
        icon="cancel",
        permissions=["view"],
        dialog={
            "title": "Cancel this run?",
            "description": "Its tool is interrupted and may clean up; if that takes over a second, it is killed.",
            "form_class": None,
            "form_submit_text": "Cancel the run",
        },
    )
    def cancel(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        return self._end(request, object_id, CancelMode.GRACEFUL)

    @action(
        description="Kill",
        icon="dangerous",
        variant=ActionVariant.DANGER,
        permissions=["view"],
        dialog={
            "title": "Kill this run?",
            "description": "Its process is killed, with all that came from it. The tool cannot clean up.",
            "form_class": None,
            "form_submit_text": "Kill the run",
        },
    )
    def kill(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        return self._end(request, object_id, CancelMode.KILL)

    @action(
        description="Run again",
        icon="replay",
        permissions=["view"],
        dialog={
            "title": "Run it again?",
            "description": "A new run of the same version with the same input, yours. What this one did is done again.",
            "form_class": None,
            "form_submit_text": "Run again",
        },
    )
    def run_again(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        execution: Execution = get_row(self, request, object_id)
        try:
            principal = get_principal(request)
            ports.get_limiter().take_in_thread(principal=principal, command=selectors.RETRY_EXECUTIONS)
            shown = services.retry_execution(
                principal=principal, execution_id=execution.id, trace_id=make_trace_id()
            ).execution_id
        except MCPError as error:
            self._tell_refusal(request, error)
            shown = execution.id
        else:
            self.message_user(request, f"This run repeats {execution.id}.", messages.SUCCESS)
        return lead_to(self, shown)

    def _end(self, request: HttpRequest, object_id: str, mode: CancelMode) -> HttpResponse:
        execution: Execution = get_row(self, request, object_id)
        try:
            is_taken = services.cancel_execution(
                principal=get_principal(request), execution_id=execution.id, mode=mode, trace_id=make_trace_id()
            )
        except MCPError as error:
            self._tell_refusal(request, error)
        else:
            if is_taken:
                self.message_user(request, "The run has ended, or is about to.", messages.SUCCESS)
            else:
                self.message_user(request, "The run had ended before.", messages.WARNING)
        return lead_to(self, execution.id)

    def _tell_refusal(self, request: HttpRequest, error: MCPError) -> None:
        self.message_user(request, tell_refusal(error), messages.ERROR)

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

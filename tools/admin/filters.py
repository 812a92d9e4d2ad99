"""What the list of runs is narrowed by. A value that is none of a filter's finds nothing, or is not taken."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.contrib.filters.admin import CheckboxFilter, DropdownFilter, RangeDateTimeFilter

from protocol.domain.messages import Priority
from tools import selectors
from tools.admin.labels import get_state_text
from tools.domain.states import ExecutionState
from tools.models import Execution

TOOL_PARAMETER = "tool__id__exact"


class StateFilter(CheckboxFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state.value, get_state_text(state.value)) for state in ExecutionState]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Execution]) -> QuerySet[Execution]:
        states = [state for state in ExecutionState if state.value in (self.value() or ())]
        if states:
            return selectors.filter_executions_by_state(queryset, states=states)
        return queryset.none() if self.value() else queryset


class PriorityFilter(CheckboxFilter):
    title = "priority"
    parameter_name = "priority"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(priority.value, priority.value) for priority in Priority]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Execution]) -> QuerySet[Execution]:
        priorities = self.value()
        return queryset.filter(priority__in=priorities) if priorities else queryset


class VersionFilter(DropdownFilter):
    """Offered once a tool is chosen: its versions."""

    title = "version"
    parameter_name = "version"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        try:
            tool_id = uuid.UUID(request.GET.get(TOOL_PARAMETER, ""))
        except ValueError:
            return []
        return [(str(version_id), version) for version_id, version in selectors.list_version_names(tool_id=tool_id)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Execution]) -> QuerySet[Execution]:
        chosen = next((key for key, _ in self.lookup_choices if key == self.value()), None)
        return queryset.filter(version=chosen) if chosen else queryset


class CreatedFilter(RangeDateTimeFilter):
    """From and to, each a day and perhaps a time; in UTC, as all that the console shows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for end, whole_day in (("from", "00:00:00"), ("to", "23:59:59")):
            if self.used_parameters.get(f"{self.parameter_name}_{end}_0"):
                key = f"{self.parameter_name}_{end}_1"
                self.used_parameters[key] = self.used_parameters.get(key) or whole_day

    def queryset(self, request: HttpRequest, queryset: QuerySet[Execution]) -> QuerySet[Execution]:
        form = self.form_class(name=self.parameter_name, data=self.used_parameters)
        # What is wrong is said beside the field, and narrows nothing.
        form.is_valid()
        first, last = (form.cleaned_data.get(f"{self.parameter_name}_{end}") for end in ("from", "to"))
        if first is not None:
            queryset = queryset.filter(created_at__gte=first)
        return queryset if last is None else queryset.filter(created_at__lt=last + timedelta(seconds=1))

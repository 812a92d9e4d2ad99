"""Tools with their versions, the way to run one, and the switch that lets nobody do so."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import RadioFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from protocol.admin import ReadOnlyAdmin, get_row, lead_to
from protocol.domain.messages import SecurityLevel
from protocol.link import make_trace_id
from security.admin import get_principal
from security.domain.policy import is_label
from tools import selectors, services
from tools.admin.labels import TOOL_COLOURS, make_label
from tools.admin.running import show_form, take_form
from tools.models import Tool

MAX_VERSIONS: Final = 20
"""Versions that a tool's page shows, the newest; each with both its schemas."""


class ToolStateFilter(RadioFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state) for state in selectors.TOOL_STATES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Tool]) -> QuerySet[Tool]:
        state = self.value()
        return selectors.filter_tools_by_state(queryset, state=state) if state else queryset


class DisablingForm(BaseDialogForm):
    reason = forms.CharField(
        max_length=500,
        help_text="Callers are told it.",
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
    )


class MarkingForm(BaseDialogForm):
    labels = forms.CharField(
        required=False,
        help_text="Separated by spaces, as production; grants name them: tool:*@label=production.",
        widget=UnfoldAdminTextInputWidget,
    )
    minimum_level = forms.ChoiceField(
        label="Demanded security level",
        required=False,
        choices=[("", "what its author demands"), *((level.value, level.value) for level in SecurityLevel)],
        help_text="Calls of a lower one are refused. It adds to what the tool's author demands and takes nothing away.",
        widget=UnfoldAdminSelectWidget,
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        tool = Tool.objects.filter(pk=self.object_id).first()
        if tool is not None:
            self.initial = {"labels": " ".join(tool.labels), "minimum_level": tool.minimum_level}

    def clean_labels(self) -> list[str]:
        labels: list[str] = self.cleaned_data["labels"].split()
        if len(labels) > services.MAX_LABELS or not all(is_label(label) for label in labels):
            raise ValidationError(
                f"Labels are a-z, 0-9 and . _ -, begin with a letter or digit, and are {services.MAX_LABELS} at most."
            )
        return labels


@admin.register(Tool)
class ToolAdmin(ReadOnlyAdmin):
    list_display = ["name", "state_label", "version", "version_count", "capabilities", "last_run", "description"]
    list_filter = [ToolStateFilter]
    list_select_related = ["current_version"]
    search_fields = ["name", "current_version__description"]
    search_help_text = "Name or description"
    sortable_by = ["name"]
    fieldsets: list[Any] = []
    actions_detail = ["run", "mark", "disable", "enable"]
    shows_history = True

    def get_queryset(self, request: HttpRequest) -> QuerySet[Tool]:
        return selectors.annotate_tools(super().get_queryset(request))

    def has_switch_permission(self, request: HttpRequest, *_args: Any) -> bool:
        return request.user.has_perm("tools.change_tool")

    def has_run_permission(self, request: HttpRequest, object_id: str) -> bool:
        """By the policy, as for every caller; of a tool that it hides, the form itself says that there is none."""
        tool = self.get_object(request, object_id)
        return (
            tool is not None
            and self.has_view_permission(request)
            and selectors.may_ask_for_run(principal=get_principal(request), tool=tool)
        )

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        tool = self.get_object(request, object_id)
        if tool is None:
            return []
        is_disabled = tool.state == Tool.State.DISABLED
        hidden = {"tools_tool_disable", "tools_tool_run"} if is_disabled else {"tools_tool_enable"}
        if not selectors.may_run_tool(principal=get_principal(request), tool=tool):
            hidden.add("tools_tool_run")
        return [each for each in super().get_actions_detail(request, object_id) if each.action_name not in hidden]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        tool: Tool = context["original"]
        versions = list(tool.versions.order_by("-created_at")[:MAX_VERSIONS])
        context |= {
            "state": make_label(self.state_label(tool), colours=TOOL_COLOURS),
            "versions": [
                {
                    "row": row,
                    "state": make_label(row.state, colours=TOOL_COLOURS),
                    "executions_query": urlencode({"tool__id__exact": tool.pk, "version": row.pk}),
                }
                for row in versions
            ],
            "versions_left_out": self.count_versions(tool) - len(versions),
            "executions_query": urlencode({"tool__id__exact": tool.pk}),
        }
        rendered: HttpResponse = super().render_change_form(request, context, *args, **kwargs)
        return rendered

    @action(description="Run", icon="play_arrow", variant=ActionVariant.PRIMARY, permissions=["run"])
    def run(self, request: HttpRequest, object_id: str) -> HttpResponse:
        answer = take_form if request.method == "POST" else show_form
        return answer(self, request, get_row(self, request, object_id))

    @action(
        description="Disable",
        icon="block",
        permissions=["switch"],
        dialog={
            "title": "Disable this tool?",
            "description": "New calls of it are refused; what was accepted before goes on.",
            "form_class": DisablingForm,
            "form_submit_text": "Disable",
        },
    )
    def disable(self, request: HttpRequest, form: DisablingForm, object_id: str) -> HttpResponse:
        tool = get_row(self, request, object_id)
        reason = form.cleaned_data["reason"]
        if services.disable_tool(tool=tool, reason=reason, principal=get_principal(request), trace_id=make_trace_id()):
            self.log_change(request, tool, f"Disabled: {reason}")
            self.message_user(request, f"{tool} is disabled.", messages.SUCCESS)
        else:
            self.message_user(request, f"{tool} was disabled already.", messages.WARNING)
        return lead_to(self, object_id)

    @action(
        description="Enable",
        icon="check",
        permissions=["switch"],
        dialog={
            "title": "Enable this tool?",
            "description": "It can be called again at once.",
            "form_class": None,
            "form_submit_text": "Enable",
        },
    )
    def enable(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        tool = get_row(self, request, object_id)
        if services.enable_tool(tool=tool, principal=get_principal(request), trace_id=make_trace_id()):
            self.log_change(request, tool, "Enabled.")
            self.message_user(request, f"{tool} is enabled.", messages.SUCCESS)
        else:
            self.message_user(request, f"{tool} was enabled already.", messages.WARNING)
        return lead_to(self, object_id)

    @action(
        description="Labels and level",
        icon="label",
        permissions=["switch"],
        dialog={
            "title": "Labels and demanded level",
            "description": "They count from the next call on.",
            "form_class": MarkingForm,
            "form_submit_text": "Save",
        },
    )
    def mark(self, request: HttpRequest, form: MarkingForm, object_id: str) -> HttpResponse:
        tool = get_row(self, request, object_id)
        labels, level = form.cleaned_data["labels"], form.cleaned_data["minimum_level"]
        if services.mark_tool(
            tool=tool,
            labels=labels,
            minimum_level=level,
            principal=get_principal(request),
            trace_id=make_trace_id(),
        ):
            self.log_change(request, tool, f"Labels: {', '.join(labels) or 'none'}; level: {level or 'its own'}.")
            self.message_user(request, f"{tool} is marked so.", messages.SUCCESS)
        else:
            self.message_user(request, f"{tool} was marked so already.", messages.WARNING)
        return lead_to(self, object_id)

    @display(description="state", label=TOOL_COLOURS)
    def state_label(self, obj: Tool) -> str:
        return selectors.get_tool_wire_state(obj)

    @display(description="version")
    def version(self, obj: Tool) -> str | None:
        return None if obj.current_version is None else obj.current_version.version

    @display(description="capabilities")
    def capabilities(self, obj: Tool) -> str | None:
        return None if obj.current_version is None else ", ".join(obj.current_version.capabilities) or None

    @display(description="versions")
    def version_count(self, obj: Tool) -> str:
        quarantined: int = getattr(obj, "quarantined_count", 0)
        return f"{self.count_versions(obj)}" + (f" ({quarantined} quarantined)" if quarantined else "")

    @display(description="last run")
    def last_run(self, obj: Tool) -> datetime | None:
        at: datetime | None = getattr(obj, "last_run_at", None)
        return at

    @display(description="description")
    def description(self, obj: Tool) -> SafeString | None:
        if obj.current_version is None:
            return None
        return format_html('<span class="mcp-clip">{}</span>', obj.current_version.description.partition("\n")[0])

    def count_versions(self, tool: Tool) -> int:
        return int(getattr(tool, "version_count", 0))

"""Who has which port, for what and until when; and the ports that nobody gets for a time, with what was found there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from unfold.contrib.filters.admin import RadioFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm

from protocol.admin import ReadOnlyAdmin, get_row, lead_to, tell_refusal
from protocol.errors import MCPError
from protocol.link import make_trace_id
from security import selectors, services
from security.admin.permissions import get_principal
from security.domain.port_leases import HELD_STATES, LIVE_STATES, HolderKind, LeaseState
from security.models import PortLease, PortQuarantine
from security.selectors.port_leases import DRAIN_PORTS, RELEASE_PORTS

LEASE_COLOURS: Final = {
    LeaseState.RESERVED.value: "info",
    LeaseState.ACTIVE.value: "success",
    LeaseState.DRAINING.value: "warning",
    LeaseState.RELEASED.value: "",
}
REASONS: Final = {
    "held": "something without a lease uses it",
    "still_held": "it was not given up after its lease",
    "forbidden": "the operating system refuses it",
}


class LeaseStateFilter(RadioFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state.value, state.value) for state in LeaseState]

    def queryset(self, request: HttpRequest, queryset: QuerySet[PortLease]) -> QuerySet[PortLease]:
        known = {state.value for state in LeaseState}
        return queryset.filter(state=self.value()) if self.value() in known else queryset


@admin.register(PortLease)
class PortLeaseAdmin(ReadOnlyAdmin):
    list_display = ["port", "host", "state_label", "purpose", "account", "held_for", "expires_at", "created_at"]
    list_filter = [LeaseStateFilter]
    list_select_related = ["account"]
    search_fields = ["purpose", "account__username", "host"]
    search_help_text = "Port, purpose, account or node"
    ordering = ["-created_at", "-id"]
    sortable_by: list[str] = []
    list_before_template = "console/refreshing_list.html"
    fieldsets = [
        (None, {"fields": ["state_label", "port", "host", "purpose", "account", "held_for", "id"]}),
        ("Time", {"fields": ["created_at", "expires_at", "active_at", "ended_at", "drain_until", "released_at"]}),
        ("End", {"fields": ["end_reason"]}),
    ]
    actions_detail = ["drain", "release"]
    shows_history = True

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[PortLease], search_term: str
    ) -> tuple[QuerySet[PortLease], bool]:
        if search_term.isdecimal() and len(search_term) <= 5:
            return queryset.filter(port=int(search_term)), False
        found: tuple[QuerySet[PortLease], bool] = super().get_search_results(request, queryset, search_term)
        return found

    def has_drain_permission(self, request: HttpRequest, object_id: str) -> bool:
        """By the policy, which the service asks too."""
        return self._is_allowed(request, object_id, DRAIN_PORTS)

    def has_release_permission(self, request: HttpRequest, object_id: str) -> bool:
        """By the policy, which the service asks too."""
        return self._is_allowed(request, object_id, RELEASE_PORTS)

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        lease = self.get_object(request, object_id)
        if lease is None or lease.state not in LIVE_STATES:
            return []
        hidden = set() if lease.state in HELD_STATES else {"security_portlease_drain"}
        return [each for each in super().get_actions_detail(request, object_id) if each.action_name not in hidden]

    @action(
        description="Drain",
        icon="hourglass_bottom",
        permissions=["view", "drain"],
        dialog={
            "title": "Drain this lease?",
            "description": "It is renewed no more. It ends once its port is left, at the latest when it expires.",
            "form_class": None,
            "form_submit_text": "Drain",
        },
    )
    def drain(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        return self._end(request, object_id, services.drain_port_lease, "Drained.")

    @action(
        description="Release",
        icon="lock_open",
        variant=ActionVariant.DANGER,
        permissions=["view", "release"],
        dialog={
            "title": "Release this port?",
            "description": "Its holder loses it now. A port that stays in use is put into quarantine.",
            "form_class": None,
            "form_submit_text": "Release the port",
        },
    )
    def release(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        return self._end(request, object_id, services.release_port_lease, "Released.")

    @display(description="state", label=LEASE_COLOURS)
    def state_label(self, obj: PortLease) -> str:
        return obj.state

    @display(description="held for")
    def held_for(self, obj: PortLease) -> str:
        if obj.holder_kind == HolderKind.ACCOUNT:
            return "the account"
        return f"{'session' if obj.holder_kind == HolderKind.SESSION else 'run'} {obj.holder_id}"

    def _is_allowed(self, request: HttpRequest, object_id: str, act: str) -> bool:
        lease = self.get_object(request, object_id)
        return lease is None or selectors.may_act_on_lease(principal=get_principal(request), action=act, lease=lease)

    def _end(self, request: HttpRequest, object_id: str, end: Callable[..., object], done: str) -> HttpResponse:
        lease: PortLease = get_row(self, request, object_id)
        try:
            end(principal=get_principal(request), lease_id=lease.id, trace_id=make_trace_id())
        except MCPError as error:
            self.message_user(request, tell_refusal(error), messages.ERROR)
            return lead_to(self, lease.id)
        lease.refresh_from_db()
        self.log_change(request, lease, done)
        self.message_user(request, f"Port {lease.port} of {lease.host} is {lease.state}.", messages.SUCCESS)
        return lead_to(self, lease.id)


@admin.register(PortQuarantine)
class PortQuarantineAdmin(ReadOnlyAdmin):
    list_display = ["port", "host", "why", "found", "until", "created_at"]
    search_fields = ["host", "found"]
    search_help_text = "Node, or what was found"
    ordering = ["-created_at", "-id"]
    sortable_by: list[str] = []
    fieldsets = [(None, {"fields": ["port", "host", "why", "found", "created_at", "until"]})]
    actions_detail = ["lift"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[PortQuarantine]:
        queryset: QuerySet[PortQuarantine] = super().get_queryset(request)
        return queryset.filter(until__gt=timezone.now())

    def has_lift_permission(self, request: HttpRequest, object_id: str) -> bool:
        """By the policy, which the service asks too."""
        row = self.get_object(request, object_id)
        return row is None or selectors.may_lift_quarantine(principal=get_principal(request), port=row.port)

    @action(
        description="Lift",
        icon="lock_open",
        permissions=["view", "lift"],
        dialog={
            "title": "Lift the quarantine of this port?",
            "description": "It is tried, and leased if it is free. What still holds it brings it back here.",
            "form_class": None,
            "form_submit_text": "Lift",
        },
    )
    def lift(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        row: PortQuarantine = get_row(self, request, object_id)
        try:
            services.lift_quarantine(principal=get_principal(request), quarantine=row, trace_id=make_trace_id())
        except MCPError as error:
            self.message_user(request, tell_refusal(error), messages.ERROR)
            return lead_to(self, row.id)
        self.log_change(request, row, "Lifted.")
        self.message_user(request, f"Port {row.port} of {row.host} may be leased again.", messages.SUCCESS)
        return HttpResponse(headers={"HX-Redirect": reverse("admin:security_portquarantine_changelist")})

    @display(description="why")
    def why(self, obj: PortQuarantine) -> str:
        return REASONS[obj.reason]

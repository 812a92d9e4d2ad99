"""The audit record: looked at and searched, never written by hand."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.contrib.filters.admin import TextFilter
from unfold.decorators import display

from protocol.admin import ReadOnlyAdmin
from security import selectors, services
from security.models import AuditEvent


class ActionFilter(TextFilter):
    """A text, as what is recorded is of every app's choice: ``tools.disable``, or ``tools.`` for all of them."""

    title = "action, or its beginning"
    parameter_name = "action"

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        text = (self.value() or "").strip()
        return queryset.filter(action__startswith=text) if text else queryset


class OutcomeFilter(TextFilter):
    title = "outcome"
    parameter_name = "outcome"

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        text = (self.value() or "").strip()
        return queryset.filter(outcome=text) if text else queryset


class ActorFilter(TextFilter):
    title = "account"
    parameter_name = "actor"

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        text = (self.value() or "").strip()
        return selectors.filter_audit_events_by_actor(queryset, username=text) if text else queryset


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    list_display = ["at", "position", "actor", "action", "resource", "outcome", "trace_id"]
    list_select_related = ["seal"]
    list_before_template = "admin/security/auditevent/chain.html"
    list_filter = [ActionFilter, OutcomeFilter, ActorFilter]
    # What is searched is the selector's matter; without a field there is no box.
    search_fields = ["id"]
    search_help_text = "Resource, account, trace or position; of a resource's name a part, among the newest events"
    sortable_by = ["at"]
    fieldsets: list[Any] = [
        (None, {"fields": ["at", "action", "resource", "outcome", "trace_id", "id"]}),
        ("In the chain", {"fields": ["position", "seal_hash", "integrity"]}),
        ("Who", {"fields": ["actor", "actor_id", "credential_id"]}),
    ]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[AuditEvent], search_term: str
    ) -> tuple[QuerySet[AuditEvent], bool]:
        term = search_term.strip()
        return (selectors.search_audit_events(queryset, term=term) if term else queryset), False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """With what a look at the chain's newest part says."""
        recent = selectors.verify_recent(find_key=services.find_audit_key)
        context = {**(extra_context or {}), "chain": recent, "last_head": selectors.get_last_head()}
        response: HttpResponse = super().changelist_view(request, extra_context=context)
        return response

    @display(description="position")
    def position(self, obj: AuditEvent) -> int | None:
        seal = getattr(obj, "seal", None)
        return None if seal is None else seal.position

    @display(description="hash")
    def seal_hash(self, obj: AuditEvent) -> str | None:
        seal = getattr(obj, "seal", None)
        return None if seal is None else seal.hash

    @display(description="check")
    def integrity(self, obj: AuditEvent) -> str:
        """Whether it is as it was sealed, looked at when the page is."""
        position = self.position(obj)
        if position is None:
            return "It has no seal yet; an event gets one within a second."
        result = selectors.verify_event(position=position, find_key=services.find_audit_key)
        if result is None:
            return "No signed head covers it yet; one is signed every ten seconds."
        if result.finding_count:
            return "; ".join(finding.text for finding in result.findings)
        head = result.head
        assert head is not None  # noqa: S101  # it was checked up to one
        return f"As it was sealed, up to the signed head {head.number} at position {head.position}."

    @display(description="account")
    def actor(self, obj: AuditEvent) -> str:
        return obj.actor_name if obj.actor_id else "the server"

    @display(description="resource")
    def resource(self, obj: AuditEvent) -> str:
        return f"{obj.resource_kind}:{obj.resource_name}"

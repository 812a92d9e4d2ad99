"""The audit record: looked at and searched, never written by hand."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.contrib.filters.admin import TextFilter
from unfold.decorators import display

from protocol.admin import ReadOnlyAdmin
from security import selectors
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
    list_display = ["at", "actor", "action", "resource", "outcome", "trace_id"]
    list_filter = [ActionFilter, OutcomeFilter, ActorFilter]
    # What is searched is the selector's matter; without a field there is no box.
    search_fields = ["id"]
    search_help_text = "Resource, account or trace; of a resource's name a part, among the newest events"
    sortable_by = ["at"]
    fieldsets: list[Any] = [
        (None, {"fields": ["at", "action", "resource", "outcome", "trace_id", "id"]}),
        ("Who", {"fields": ["actor", "actor_id", "credential_id"]}),
    ]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[AuditEvent], search_term: str
    ) -> tuple[QuerySet[AuditEvent], bool]:
        term = search_term.strip()
        return (selectors.search_audit_events(queryset, term=term) if term else queryset), False

    @display(description="account")
    def actor(self, obj: AuditEvent) -> str:
        return obj.actor_name if obj.actor_id else "the server"

    @display(description="resource")
    def resource(self, obj: AuditEvent) -> str:
        return f"{obj.resource_kind}:{obj.resource_name}"

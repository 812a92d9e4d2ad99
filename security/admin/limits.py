"""Limits: so many commands or runs a period, for whom. What is left to an account is on the account's page."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.decorators import display

from protocol.link import make_trace_id
from security import services
from security.admin.permissions import SuperuserWrites, get_principal
from security.models import Limit


@admin.register(Limit)
class LimitAdmin(SuperuserWrites, ModelAdmin):
    list_display = ["name", "is_enabled", "whose", "counted", "pattern", "rate"]
    list_filter = ["is_enabled", "scope", "counted", "period"]
    search_fields = ["name", "pattern"]
    list_select_related = ["account", "api_key", "role"]
    autocomplete_fields = ["account", "role"]
    raw_id_fields = ["api_key"]
    readonly_fields = ["id", "created_at"]
    fieldsets = [
        (None, {"fields": ["name", "is_enabled"]}),
        ("Whose", {"fields": ["scope", "account", "api_key", "role"]}),
        ("What", {"fields": ["counted", "pattern"]}),
        ("How much", {"fields": ["amount", "period", "burst"]}),
        ("Record", {"fields": ["id", "created_at"]}),
    ]

    def save_model(self, request: HttpRequest, obj: Limit, form: Any, change: bool) -> None:
        services.save_limit(limit=obj, principal=get_principal(request), trace_id=make_trace_id())

    def delete_model(self, request: HttpRequest, obj: Limit) -> None:
        services.delete_limit(limit=obj, principal=get_principal(request), trace_id=make_trace_id())

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Limit]) -> None:
        for limit in queryset:
            self.delete_model(request, limit)

    @display(description="whose")
    def whose(self, obj: Limit) -> str:
        subject = obj.account or obj.api_key or obj.role
        return f"{obj.get_scope_display()}: {subject}" if subject else obj.get_scope_display()

    @display(description="how much")
    def rate(self, obj: Limit) -> str:
        burst = f", {obj.burst:,} at once" if obj.burst else ""
        return f"{obj.amount:,} a {obj.period}{burst}"

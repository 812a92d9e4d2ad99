"""Roles with their grants, and Django's groups, which are roles in the console only."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.models import Group
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import path
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget

from security import services
from security.admin.explain import show_explanation
from security.admin.permissions import SuperuserWrites, get_actor
from security.models import Grant, Role, validate_conditions


class GrantForm(forms.ModelForm):  # type: ignore[type-arg]  # not subscriptable at run time
    conditions = forms.JSONField(
        required=False,
        initial=dict,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text='When it counts, as {"networks": ["10.0.0.0/8"], "minimum_level": "high"}; empty: always.',
    )

    class Meta:
        model = Grant
        fields = ("effect", "action_pattern", "resource_pattern", "conditions")

    def clean_conditions(self) -> Any:
        conditions = self.cleaned_data["conditions"] or {}
        validate_conditions(conditions)
        return conditions


class GrantInline(TabularInline):
    model = Grant
    form = GrantForm
    extra = 0
    fields = ["effect", "action_pattern", "resource_pattern", "conditions"]

    def has_view_permission(self, request: HttpRequest, obj: Role | None = None) -> bool:
        return get_actor(request).has_perm("security.view_role")

    def has_add_permission(self, request: HttpRequest, obj: Role | None = None) -> bool:
        return self._may_write(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Role | None = None) -> bool:
        return self._may_write(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Role | None = None) -> bool:
        return self._may_write(request, obj)

    def _may_write(self, request: HttpRequest, role: Role | None) -> bool:
        return get_actor(request).is_superuser and not (role and role.is_builtin)


@admin.register(Role)
class RoleAdmin(SuperuserWrites, ModelAdmin):
    list_display = ["name", "description", "minimum_level", "is_builtin", "grant_lines"]
    list_filter = ["is_builtin"]
    search_fields = ["name", "description"]
    fields = ["name", "description", "minimum_level"]
    inlines = [GrantInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Role]:
        return cast("QuerySet[Role]", super().get_queryset(request).prefetch_related("grants"))

    def has_change_permission(self, request: HttpRequest, obj: Role | None = None) -> bool:
        return super().has_change_permission(request) and not (obj and obj.is_builtin)

    def has_delete_permission(self, request: HttpRequest, obj: Role | None = None) -> bool:
        return super().has_delete_permission(request) and not (obj and obj.is_builtin)

    def get_urls(self) -> list[Any]:
        page = self.admin_site.admin_view(show_explanation)
        return [path("explain/", page, name="security_role_explain"), *super().get_urls()]

    def save_model(self, request: HttpRequest, obj: Role, form: Any, change: bool) -> None:
        services.save_role(role=obj)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        changed = formset.save(commit=False)
        for grant in formset.deleted_objects:
            services.delete_grant(grant=grant)
        for grant in changed:
            services.save_grant(grant=grant)

    def delete_model(self, request: HttpRequest, obj: Role) -> None:
        services.delete_role(role=obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Role]) -> None:
        for role in queryset:
            services.delete_role(role=role)

    @display(description="grants")
    def grant_lines(self, obj: Role) -> str:
        return "; ".join(str(grant) for grant in obj.grants.all()) or "none"


admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(SuperuserWrites, DjangoGroupAdmin, ModelAdmin):
    """Django's groups: what staff may do in the console, in the console's look."""

"""The console's pages of accounts, roles and API keys.

An edge: it parses, calls a service and renders. Whoever changes accounts or roles can give itself anything, so only
superusers do; others see them where they have Django's ``view`` permission. A new key's text stands on the one page
that answers its creation, and in no message, cookie, session or log entry.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db.models import ForeignKey, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action, display
from unfold.forms import AdminPasswordChangeForm, BaseDialogForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminTextareaWidget

from security import selectors, services
from security.domain.api_keys import KeyState
from security.models import Account, ApiKey, Grant, Role, validate_scopes

_STATE_COLOURS = {KeyState.ACTIVE.value: "success", KeyState.EXPIRED.value: "warning", KeyState.REVOKED.value: "danger"}


def get_actor(request: HttpRequest) -> Account:
    """Who is signed in; the admin site lets nobody else in."""
    return cast("Account", request.user)


class SuperuserWrites:
    """Permissions of a page that only superusers change."""

    def has_add_permission(self, request: HttpRequest, *_args: Any) -> bool:
        return get_actor(request).is_superuser

    def has_change_permission(self, request: HttpRequest, *_args: Any, **_kwargs: Any) -> bool:
        return get_actor(request).is_superuser

    def has_delete_permission(self, request: HttpRequest, *_args: Any, **_kwargs: Any) -> bool:
        return get_actor(request).is_superuser


class AccountCreationForm(UserCreationForm):
    """A person with or without a password, or a service."""

    class Meta:
        model = Account
        fields = ("username", "kind", "display_name", "email", "roles")

    def clean(self) -> dict[str, Any]:
        if self.cleaned_data.get("kind") == Account.Kind.SERVICE:
            if self.cleaned_data.get("password1"):
                self.add_error("password1", "A service account has keys, no password.")
            self.cleaned_data["usable_password"] = "false"  # noqa: S105  # the field's value for none
        return cast("dict[str, Any]", super().clean())


class AccountChangeForm(UserChangeForm):
    class Meta:
        model = Account
        fields = "__all__"


class AccountPasswordForm(AdminPasswordChangeForm):
    """Another's password, set or taken away."""

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if self.user.is_service:
            raise ValidationError("A service account has keys, no password.", code="service_has_no_password")
        return cast("dict[str, Any]", cleaned)

    def save(self, commit: bool = True) -> Account:
        if self.cleaned_data["set_usable_password"]:
            services.set_password(account=self.user, password=self.cleaned_data["password1"])
        else:
            services.remove_password(account=self.user)
        return cast("Account", self.user)


@admin.register(Account)
class AccountAdmin(SuperuserWrites, DjangoUserAdmin, ModelAdmin):  # type: ignore[type-arg]  # not subscriptable at run time
    form = AccountChangeForm
    add_form = AccountCreationForm
    change_password_form = AccountPasswordForm
    list_display = ["username", "display_name", "kind", "role_names", "is_active", "is_staff", "last_login"]
    list_filter = ["kind", "is_active", "is_staff", "roles"]
    search_fields = ["username", "display_name", "email"]
    ordering = ["username"]
    autocomplete_fields = ["roles"]
    filter_horizontal = ["groups", "user_permissions"]
    readonly_fields = ["id", "kind", "last_login", "created_at"]
    fieldsets = [
        (None, {"fields": ["username", "password", "kind", "display_name", "email", "is_active"]}),
        ("As an agent or operator", {"fields": ["roles", "security_level_max"]}),
        ("In the console", {"fields": ["is_staff", "is_superuser", "groups", "user_permissions"]}),
        ("Record", {"fields": ["id", "created_at", "last_login"]}),
    ]
    service_fieldsets = [
        (None, {"fields": ["username", "kind", "display_name", "email", "is_active"]}),
        ("As an agent", {"fields": ["roles", "security_level_max"]}),
        ("Record", {"fields": ["id", "created_at"]}),
    ]
    add_fieldsets = [
        (
            None,
            {
                "classes": ["wide"],
                "fields": [
                    "username",
                    "kind",
                    "display_name",
                    "email",
                    "roles",
                    "usable_password",
                    "password1",
                    "password2",
                ],
            },
        )
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Account]:
        return cast("QuerySet[Account]", super().get_queryset(request).prefetch_related("roles"))

    def get_fieldsets(self, request: HttpRequest, obj: Account | None = None) -> Any:
        return self.service_fieldsets if obj and obj.is_service else super().get_fieldsets(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Account | None = None) -> list[str]:
        return self.readonly_fields if obj else []

    def has_delete_permission(self, request: HttpRequest, *_args: Any, **_kwargs: Any) -> bool:
        """Never: records name accounts. They are made inactive."""
        return False

    def save_model(self, request: HttpRequest, obj: Account, form: Any, change: bool) -> None:
        services.save_account(account=obj)

    @display(description="roles")
    def role_names(self, obj: Account) -> str:
        return ", ".join(role.name for role in obj.roles.all()) or "none"


class GrantInline(TabularInline):
    model = Grant
    extra = 0
    fields = ["effect", "action_pattern", "resource_pattern"]

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
    list_display = ["name", "description", "is_builtin", "grant_lines"]
    list_filter = ["is_builtin"]
    search_fields = ["name", "description"]
    fields = ["name", "description"]
    inlines = [GrantInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Role]:
        return cast("QuerySet[Role]", super().get_queryset(request).prefetch_related("grants"))

    def has_change_permission(self, request: HttpRequest, obj: Role | None = None) -> bool:
        return super().has_change_permission(request) and not (obj and obj.is_builtin)

    def has_delete_permission(self, request: HttpRequest, obj: Role | None = None) -> bool:
        return super().has_delete_permission(request) and not (obj and obj.is_builtin)

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


class ScopesField(forms.CharField):
    """Action patterns, one a line or with spaces between them."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}), **kwargs)

    def to_python(self, value: str | None) -> list[str]:  # type: ignore[override]  # the field's value is a list
        return (value or "").split()

    def run_validators(self, value: list[str]) -> None:
        validate_scopes(value)


class ApiKeyCreationForm(forms.ModelForm):  # type: ignore[type-arg]  # not subscriptable at run time
    scopes = ScopesField(
        help_text="Action patterns that narrow what the account may, one a line, e.g. tools.*; empty: all that it may."
    )

    class Meta:
        model = ApiKey
        fields = ("account", "name", "scopes", "expires_at")

    def clean_expires_at(self) -> datetime | None:
        expires_at: datetime | None = self.cleaned_data["expires_at"]
        if expires_at and expires_at <= timezone.now():
            raise ValidationError("The key would have expired already.", code="expired")
        return expires_at


class KeyStateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state.value, state.value) for state in KeyState]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        state = next((state for state in KeyState if state.value == self.value()), None)
        return selectors.filter_api_keys(queryset, state=state, now=timezone.now()) if state else queryset


class IssuingRequest(HttpRequest):
    """A request that made a key, on its way to the page that shows it."""

    issued_key: services.IssuedKey


@admin.register(ApiKey)
class ApiKeyAdmin(ModelAdmin):
    list_display = ["name", "prefix", "account", "scope_lines", "state", "last_used_at", "expires_at", "created_at"]
    list_filter = [KeyStateFilter]
    list_select_related = ["account"]
    search_fields = ["name", "prefix", "account__username"]
    ordering = ["-created_at"]
    autocomplete_fields = ["account"]
    actions = ["revoke_selected"]
    actions_detail = ["revoke_key"]
    add_fields = ["account", "name", "scopes", "expires_at"]
    change_fields = [
        "name",
        "prefix",
        "account",
        "scope_lines",
        "state",
        "expires_at",
        "revoked_at",
        "last_used_at",
        "created_at",
        "created_by",
    ]
    issued_template = "admin/security/apikey/issued.html"

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> list[str]:
        return self.change_fields if obj else self.add_fields

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> list[str]:
        return self.change_fields[1:] if obj else []

    def get_form(self, request: HttpRequest, obj: ApiKey | None = None, change: bool = False, **kwargs: Any) -> Any:
        form = {} if obj else {"form": ApiKeyCreationForm}
        return super().get_form(request, obj, change=change, **{**form, **kwargs})

    def formfield_for_foreignkey(self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "account":
            kwargs["queryset"] = selectors.list_accounts_keyed_by(actor=get_actor(request))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        """Never: a key is revoked, and stays as a record of what was done with it."""
        return False

    def has_revoke_permission(self, request: HttpRequest, *_args: Any) -> bool:
        return bool(self.has_change_permission(request))

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        if change:
            services.rename_api_key(api_key=obj, name=form.cleaned_data["name"])
            return
        issued = services.issue_api_key(
            account=obj.account,
            name=obj.name,
            scopes=obj.scopes,
            expires_at=obj.expires_at,
            created_by=get_actor(request),
        )
        obj.pk = issued.api_key.pk
        obj.refresh_from_db()
        cast("IssuingRequest", request).issued_key = issued

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:
        """The page with the key's text, not a redirect: on the way there it would lie in a cookie or a session."""
        return TemplateResponse(
            request,
            self.issued_template,
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "title": "The new API key",
                "original": obj,
                "secret": cast("IssuingRequest", request).issued_key.secret,
            },
        )

    @admin.action(description="Revoke", permissions=["revoke"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        revoked = [key for key in queryset if services.revoke_api_key(api_key=key, revoked_by=get_actor(request))]
        for api_key in revoked:
            self.log_change(request, api_key, "Revoked.")
        self.message_user(request, f"Revoked: {len(revoked)}.", messages.SUCCESS)

    @action(
        description="Revoke",
        permissions=["revoke"],
        dialog={
            "title": "Revoke this key?",
            "description": "It will not be accepted again; this cannot be undone.",
            "form_class": None,
            "form_submit_text": "Revoke",
        },
    )
    def revoke_key(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        api_key = self.get_object(request, object_id)
        if services.revoke_api_key(api_key=api_key, revoked_by=get_actor(request)):
            self.log_change(request, api_key, "Revoked.")
        return HttpResponse(headers={"HX-Redirect": reverse("admin:security_apikey_change", args=[object_id])})

    @display(description="scopes")
    def scope_lines(self, obj: ApiKey) -> str:
        return ", ".join(obj.scopes) or "all"

    @display(description="state", label=_STATE_COLOURS)
    def state(self, obj: ApiKey) -> str:
        return obj.get_state(now=timezone.now()).value


admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(SuperuserWrites, DjangoGroupAdmin, ModelAdmin):
    """Django's groups: what staff may do in the console, in the console's look."""

"""API keys. A new one's text stands on the one page that answers its creation.

It is in no message, cookie, session or log entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Final, cast

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import ForeignKey, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextareaWidget

from protocol.admin import get_row
from security import selectors, services
from security.admin.permissions import get_actor
from security.admin.revoking import RevocableKeys
from security.domain.api_keys import KeyState
from security.models import ApiKey, validate_networks, validate_scopes

STATE_COLOURS: Final = {
    KeyState.ACTIVE.value: "success",
    KeyState.EXPIRED.value: "warning",
    KeyState.REVOKED.value: "danger",
}


class LinesField(forms.CharField):
    """Texts, one a line or with spaces between them, that a function takes as a list."""

    def __init__(self, validate: Callable[[object], None], **kwargs: Any) -> None:
        self._validate = validate
        super().__init__(required=False, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}), **kwargs)

    def to_python(self, value: str | None) -> list[str]:  # type: ignore[override]  # the field's value is a list
        return (value or "").split()

    def run_validators(self, value: list[str]) -> None:
        self._validate(value)


class ApiKeyCreationForm(forms.ModelForm):  # type: ignore[type-arg]  # not subscriptable at run time
    scopes = LinesField(
        validate_scopes,
        help_text="Action patterns that narrow what the account may, one a line, e.g. tools.*; empty: all that it may.",
    )

    networks = LinesField(
        validate_networks,
        help_text="Addresses and networks that the key is taken from, one a line, e.g. 10.0.0.0/8; empty: everywhere.",
    )

    class Meta:
        model = ApiKey
        fields = ("account", "name", "scopes", "networks", "expires_at")

    def clean_expires_at(self) -> datetime | None:
        expires_at: datetime | None = self.cleaned_data["expires_at"]
        if expires_at and expires_at <= timezone.now():
            raise ValidationError("The key would have expired already.", code="expired")
        return expires_at


class RotationForm(forms.Form):
    overlap_hours = forms.FloatField(
        label="Overlap in hours",
        min_value=0,
        max_value=24 * 365,
        initial=services.DEFAULT_OVERLAP.total_seconds() / 3600,
        widget=UnfoldAdminIntegerFieldWidget(attrs={"step": "any"}),
        help_text="How long the old key goes on counting.",
    )


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
class ApiKeyAdmin(RevocableKeys, ModelAdmin):
    list_display = [
        "name",
        "prefix",
        "account",
        "scope_lines",
        "state",
        "last_used_at",
        "last_used_from",
        "expires_at",
        "created_at",
    ]
    list_filter = [KeyStateFilter]
    list_select_related = ["account"]
    search_fields = ["name", "prefix", "account__username"]
    ordering = ["-created_at"]
    autocomplete_fields = ["account"]
    actions = ["revoke_selected"]
    actions_detail = ["rotate_key", "revoke_key"]
    add_fields = ["account", "name", "scopes", "networks", "expires_at"]
    change_fields = [
        "name",
        "prefix",
        "account",
        "scope_lines",
        "network_lines",
        "state",
        "expires_at",
        "replaces",
        "revoked_at",
        "last_used_at",
        "last_used_from",
        "created_at",
        "created_by",
    ]
    issued_template = "admin/security/apikey/issued.html"
    rotate_template = "admin/security/apikey/rotate.html"

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

    def has_rotate_permission(self, request: HttpRequest, object_id: str) -> bool:
        """Whoever rotates a key learns its successor: only whom a new one could be issued by."""
        api_key = self.get_object(request, object_id)
        return (
            api_key is not None
            and bool(self.has_add_permission(request))
            and selectors.list_accounts_keyed_by(actor=get_actor(request)).filter(pk=api_key.account_id).exists()
        )

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        if change:
            services.rename_api_key(api_key=obj, name=form.cleaned_data["name"])
            return
        issued = services.issue_api_key(
            account=obj.account,
            name=obj.name,
            scopes=obj.scopes,
            networks=obj.networks,
            expires_at=obj.expires_at,
            created_by=get_actor(request),
        )
        obj.pk = issued.api_key.pk
        obj.refresh_from_db()
        cast("IssuingRequest", request).issued_key = issued

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:
        """The page with the key's text, not a redirect: on the way there it would lie in a cookie or a session."""
        return self._show_secret(request, cast("IssuingRequest", request).issued_key)

    def _show_secret(self, request: HttpRequest, issued: services.IssuedKey) -> HttpResponse:
        return TemplateResponse(
            request,
            self.issued_template,
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "title": "The new API key",
                "original": issued.api_key,
                "secret": issued.secret,
            },
        )

    @action(description="Rotate", icon="autorenew", permissions=["rotate"])
    def rotate_key(self, request: HttpRequest, object_id: str) -> HttpResponse:
        api_key: ApiKey = get_row(self, request, object_id)
        form = RotationForm(request.POST if request.method == "POST" else None)
        if form.is_valid():
            try:
                issued = services.rotate_api_key(
                    api_key=api_key,
                    overlap=timedelta(hours=form.cleaned_data["overlap_hours"]),
                    rotated_by=get_actor(request),
                )
            except ValidationError as error:
                form.add_error(None, error)
            else:
                self.log_change(request, api_key, f"Rotated: {issued.api_key.prefix} follows.")
                return self._show_secret(request, issued)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"Rotate {api_key.name}",
            "original": api_key,
            "form": form,
        }
        return TemplateResponse(request, self.rotate_template, context)

    def revoke(self, request: HttpRequest, keys: Iterable[ApiKey]) -> list[ApiKey]:
        return [key for key in keys if services.revoke_api_key(api_key=key, revoked_by=get_actor(request))]

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
        return self.revoke_from_page(request, object_id)

    @display(description="scopes")
    def scope_lines(self, obj: ApiKey) -> str:
        return ", ".join(obj.scopes) or "all"

    @display(description="networks")
    def network_lines(self, obj: ApiKey) -> str:
        return ", ".join(obj.networks) or "all"

    @display(description="state", label=STATE_COLOURS)
    def state(self, obj: ApiKey) -> str:
        return obj.get_state(now=timezone.now()).value

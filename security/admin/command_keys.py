"""The keys with which accounts sign commands: registered and revoked, never changed or deleted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import ForeignKey
from django.http import HttpRequest, HttpResponse
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminTextareaWidget

from security import selectors, services
from security.admin.permissions import get_actor, get_principal
from security.admin.revoking import RevocableKeys
from security.models import CommandKey

STATE_COLOURS = {"in use": "success", "revoked": "danger"}


class CommandKeyForm(forms.ModelForm):  # type: ignore[type-arg]  # not subscriptable at run time
    # Not the model's field, which takes one form only and is not edited.
    written_key = forms.CharField(
        label="public key",
        max_length=1_000,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text="An Ed25519 public key as base64url, PEM, or a line as OpenSSH writes it. The private half stays"
        " where it is.",
    )

    class Meta:
        model = CommandKey
        fields = ("account", "label")

    def clean_written_key(self) -> str:
        text: str = self.cleaned_data["written_key"]
        try:
            services.check_public_key(public_key=text)
        except ValidationError as error:
            raise ValidationError(error.messages, code="public_key_invalid") from error
        return text


@admin.register(CommandKey)
class CommandKeyAdmin(RevocableKeys, ModelAdmin):
    list_display = ["label", "account", "key_id", "state", "created_at", "created_by"]
    list_filter = [("revoked_at", admin.EmptyFieldListFilter)]
    list_select_related = ["account", "created_by"]
    search_fields = ["label", "key_id", "account__username"]
    ordering = ["-created_at"]
    autocomplete_fields = ["account"]
    actions = ["revoke_selected"]
    actions_detail = ["revoke_key"]
    add_fields = ["account", "label", "written_key"]
    change_fields = ["label", "account", "key_id", "public_key", "state", "created_at", "created_by", "revoked_at"]

    def get_fields(self, request: HttpRequest, obj: CommandKey | None = None) -> list[str]:
        return self.change_fields if obj else self.add_fields

    def get_readonly_fields(self, request: HttpRequest, obj: CommandKey | None = None) -> list[str]:
        return self.change_fields if obj else []

    def get_form(self, request: HttpRequest, obj: CommandKey | None = None, change: bool = False, **kwargs: Any) -> Any:
        form = {} if obj else {"form": CommandKeyForm}
        return super().get_form(request, obj, change=change, **{**form, **kwargs})

    def formfield_for_foreignkey(self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "account":
            kwargs["queryset"] = selectors.list_accounts_keyed_by(actor=get_actor(request))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def save_model(self, request: HttpRequest, obj: CommandKey, form: Any, change: bool) -> None:
        if change:
            # Nothing of it changes; the page is there to be read.
            return
        row = services.register_command_key(
            account=obj.account,
            public_key=form.cleaned_data["written_key"],
            label=obj.label,
            principal=get_principal(request),
        )
        obj.pk = row.pk
        obj.refresh_from_db()

    def revoke(self, request: HttpRequest, keys: Iterable[CommandKey]) -> list[CommandKey]:
        principal = get_principal(request)
        return [key for key in keys if services.revoke_command_key(command_key=key, principal=principal)]

    @action(
        description="Revoke",
        permissions=["revoke"],
        dialog={
            "title": "Revoke this key?",
            "description": "Commands that it signs are refused from now on; this cannot be undone.",
            "form_class": None,
            "form_submit_text": "Revoke",
        },
    )
    def revoke_key(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        return self.revoke_from_page(request, object_id)

    @display(description="state", label=STATE_COLOURS)
    def state(self, obj: CommandKey) -> str:
        return "in use" if obj.revoked_at is None else "revoked"

"""Rules of addresses. A rule that would shut out whoever stores it is asked about first."""

from __future__ import annotations

from typing import Any, Final, cast

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.decorators import display
from unfold.widgets import UnfoldBooleanSwitchWidget

from protocol.link import make_trace_id
from security import services
from security.admin.permissions import SuperuserWrites, get_actor, get_principal
from security.domain.addresses import is_network
from security.models import AddressRule
from security.services import refuse_lock_out

RULE_FIELDS: Final = ("effect", "network", "account", "api_key", "note", "is_enabled")


class AddressRuleForm(forms.ModelForm):  # type: ignore[type-arg]  # not subscriptable at run time
    request: HttpRequest
    """Set by the page: who stores the rule, and from where."""

    is_confirmed = forms.BooleanField(
        label="Shut me out",
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text="Store the rule although it does not let in the address that you come from now. The way back is "
        "manage.py address_rules --disable-all, on the server.",
    )

    class Meta:
        model = AddressRule
        fields = RULE_FIELDS

    def clean(self) -> dict[str, Any]:
        cleaned = cast("dict[str, Any]", super().clean())
        if not self.errors and not cleaned["is_confirmed"] and is_network(cleaned["network"]):
            rule = AddressRule(pk=self.instance.pk, **{name: cleaned[name] for name in RULE_FIELDS})
            try:
                refuse_lock_out(
                    rule, without=rule.pk, actor=get_actor(self.request), principal=get_principal(self.request)
                )
            except ValidationError as error:
                self.add_error("is_confirmed", error)
        return cleaned


@admin.register(AddressRule)
class AddressRuleAdmin(SuperuserWrites, ModelAdmin):
    form = AddressRuleForm
    list_display = ["network", "effect", "for_whom", "is_enabled", "note", "created_at"]
    list_filter = ["effect", "is_enabled"]
    list_select_related = ["account", "api_key"]
    search_fields = ["network", "note", "account__username", "api_key__prefix"]
    search_help_text = "Network, note, account or the beginning of a key"
    autocomplete_fields = ["account", "api_key"]
    fields = ["effect", "network", "account", "api_key", "note", "is_enabled", "is_confirmed"]

    def get_form(
        self, request: HttpRequest, obj: AddressRule | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        made = super().get_form(request, obj, change=change, **kwargs)
        # The form is a class; each request has its own.
        return type("RequestForm", (made,), {"request": request})

    def save_model(self, request: HttpRequest, obj: AddressRule, form: Any, change: bool) -> None:
        services.save_address_rule(
            rule=obj,
            actor=get_actor(request),
            principal=get_principal(request),
            trace_id=make_trace_id(),
            is_confirmed=form.cleaned_data["is_confirmed"],
        )

    def delete_model(self, request: HttpRequest, obj: AddressRule) -> None:
        self._delete(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[AddressRule]) -> None:
        for rule in queryset:
            self._delete(request, rule)

    def _delete(self, request: HttpRequest, rule: AddressRule) -> None:
        try:
            services.delete_address_rule(
                rule=rule, actor=get_actor(request), principal=get_principal(request), trace_id=make_trace_id()
            )
        except ValidationError as error:
            self.message_user(request, f"{rule} stays. {' '.join(error.messages)}", messages.ERROR)

    @display(description="for")
    def for_whom(self, obj: AddressRule) -> str:
        return obj.scope

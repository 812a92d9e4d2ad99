"""Tokens by their families: what came of each sign-in. Looked at, and ended."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm

from protocol.admin import ReadOnlyAdmin, get_row, lead_to, tell_refusal
from protocol.errors import MCPError
from protocol.link import make_trace_id
from security import services
from security.admin.permissions import get_principal
from security.domain.tokens import TokenState
from security.models import IssuedToken

STATE_COLOURS: Final = {
    TokenState.ACTIVE.value: "success",
    TokenState.SPENT.value: "",
    TokenState.EXPIRED.value: "warning",
    TokenState.REVOKED.value: "danger",
}


@admin.register(IssuedToken)
class IssuedTokenAdmin(ReadOnlyAdmin):
    list_display = ["family", "kind", "account", "ground", "state", "remote_address", "issued_at", "expires_at"]
    list_filter = ["kind"]
    list_select_related = ["account", "api_key"]
    search_fields = ["account__username", "api_key__prefix", "remote_address"]
    search_help_text = "Account, beginning of a key, or address"
    ordering = ["-issued_at"]
    sortable_by = ["issued_at"]
    actions_detail = ["revoke_sign_in"]
    shows_history = True
    fieldsets: list[Any] = [
        (None, {"fields": ["kind", "state", "account", "ground", "scope_lines", "id", "family_id"]}),
        (
            "Time",
            {"fields": ["issued_at", "remote_address", "expires_at", "spent_at", "revoked_at"]},
        ),
        ("Use", {"fields": ["last_used_at", "last_used_from"]}),
    ]

    def has_revoke_permission(self, request: HttpRequest, object_id: str) -> bool:
        """By the policy, as for every caller: the service asks."""
        return bool(self.has_view_permission(request))

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        token = self.get_object(request, object_id)
        is_over = token is None or token.revoked_at is not None
        return [] if is_over else super().get_actions_detail(request, object_id)

    @action(
        description="Revoke sign-in",
        icon="link_off",
        variant=ActionVariant.DANGER,
        permissions=["view", "revoke"],
        dialog={
            "title": "Revoke this sign-in?",
            "description": "All tokens that came of it are worthless, and connections by them close.",
            "form_class": None,
            "form_submit_text": "Revoke",
        },
    )
    def revoke_sign_in(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        token: IssuedToken = get_row(self, request, object_id)
        try:
            is_revoked = services.revoke_token_family(
                family_id=token.family_id, principal=get_principal(request), trace_id=make_trace_id()
            )
        except MCPError as error:
            self.message_user(request, tell_refusal(error), messages.ERROR)
            return lead_to(self, token.pk)
        if is_revoked:
            self.log_change(request, token, "Revoked its sign-in.")
            self.message_user(request, "The tokens of this sign-in count no more.", messages.SUCCESS)
        else:
            self.message_user(request, "It was revoked before.", messages.WARNING)
        return lead_to(self, token.pk)

    def get_queryset(self, request: HttpRequest) -> QuerySet[IssuedToken]:
        queryset: QuerySet[IssuedToken] = super().get_queryset(request)
        return queryset.defer("password_stamp")

    @display(description="sign-in")
    def family(self, obj: IssuedToken) -> str:
        return str(obj.family_id)[:13]

    @display(description="obtained with")
    def ground(self, obj: IssuedToken) -> str:
        return f"key {obj.api_key.prefix}…" if obj.api_key else "password"

    @display(description="scopes")
    def scope_lines(self, obj: IssuedToken) -> str:
        return ", ".join(obj.scopes) or "all"

    @display(description="state", label=STATE_COLOURS)
    def state(self, obj: IssuedToken) -> str:
        return obj.get_state(now=timezone.now()).value

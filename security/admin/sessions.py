"""Closing a connection from its session's page, which is ``protocol``'s but for this."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm

from protocol.admin import SessionAdmin, get_row, lead_to, tell_refusal
from protocol.errors import MCPError
from protocol.link import make_trace_id
from protocol.models import Session
from security import selectors, services
from security.admin.permissions import get_principal

admin.site.unregister(Session)


@admin.register(Session)
class ClosableSessionAdmin(SessionAdmin):
    actions_detail = ["close_connection"]
    shows_history = True

    def get_fieldsets(self, request: HttpRequest, obj: Session | None = None) -> Any:
        return [*self.fieldsets[:1], ("Authentication", {"fields": ["opened_with"]}), *self.fieldsets[1:]]

    def get_readonly_fields(self, request: HttpRequest, obj: Session | None = None) -> list[str]:
        return [*super().get_readonly_fields(request, obj), "opened_with"]

    @display(description="opened with")
    def opened_with(self, obj: Session) -> str:
        return selectors.describe_credentials(credential_ids=[obj.credential_id])[obj.credential_id]

    def has_close_permission(self, request: HttpRequest, object_id: str) -> bool:
        """By the policy, which the service asks too; the console's permissions let see the page."""
        session = self.get_object(request, object_id)
        return session is None or selectors.may_revoke_session(principal=get_principal(request), session=session)

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        session = self.get_object(request, object_id)
        is_open = session is not None and session.ended_at is None
        return super().get_actions_detail(request, object_id) if is_open else []

    @action(
        description="Close connection",
        icon="link_off",
        variant=ActionVariant.DANGER,
        permissions=["view", "close"],
        dialog={
            "title": "Close this connection?",
            "description": "Its client is disconnected, and the tokens of its sign-in count no more. Its runs go on, "
            "and with a key it may connect again.",
            "form_class": None,
            "form_submit_text": "Close the connection",
        },
    )
    def close_connection(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        session: Session = get_row(self, request, object_id)
        try:
            is_closed = services.revoke_session(
                session_id=session.id, principal=get_principal(request), trace_id=make_trace_id()
            )
        except MCPError as error:
            self.message_user(request, tell_refusal(error), messages.ERROR)
            return lead_to(self, session.id)
        if is_closed:
            self.log_change(request, session, "Closed its connection.")
            self.message_user(request, "The session has ended, and its connection closes.", messages.SUCCESS)
        else:
            self.message_user(request, "The session had ended before.", messages.WARNING)
        return lead_to(self, session.id)

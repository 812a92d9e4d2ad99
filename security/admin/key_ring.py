"""The server's keys: what each is for and where in its life it is, never what is secret of it; for superusers."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.decorators import action, display
from unfold.forms import BaseDialogForm

from protocol.admin import ReadOnlyAdmin, get_row, lead_to
from security import selectors, services
from security.admin.permissions import get_actor, get_principal
from security.domain.key_states import KeyPurpose, RingKeyState
from security.models import EncryptionKey

STATE_COLOURS: Final = {
    RingKeyState.PENDING.value: "info",
    RingKeyState.ACTIVE.value: "success",
    RingKeyState.RETIRING.value: "warning",
    RingKeyState.RETIRED.value: "",
}
USES: Final = {
    KeyPurpose.AT_REST: "Seals what the database holds in confidence.",
    KeyPurpose.JWT: "Signs access and refresh tokens.",
    KeyPurpose.IDENTITY: "Signs handshakes: the identity that clients may pin.",
    KeyPurpose.AUDIT: "Signs the heads of the audit record.",
}


@admin.register(EncryptionKey)
class EncryptionKeyAdmin(ReadOnlyAdmin):
    list_display = ["id", "purpose", "state_label", "age", "created_at", "activated_at", "replaced_at", "retired_at"]
    list_filter = ["purpose", "state"]
    ordering = ["purpose", "-created_at"]
    actions_detail = ["rotate_key"]
    fieldsets: list[Any] = [
        (None, {"fields": ["id", "purpose", "use", "state_label", "algorithm", "master_key_id", "sealed_values"]}),
        ("When", {"fields": ["created_at", "activates_at", "activated_at", "replaced_at", "retired_at"]}),
    ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        if self.has_view_permission(request):
            now = timezone.now()
            for key in selectors.list_aged_keys(now=now):
                text = f"Key {key.id} ({key.get_purpose_display()}) is in use for {key.get_days_in_use(now=now)} days."
                self.message_user(request, f"{text} Replace it: its page has a button for it.", messages.WARNING)
        return super().changelist_view(request, extra_context)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return get_actor(request).is_superuser

    def has_view_permission(self, request: HttpRequest, obj: EncryptionKey | None = None) -> bool:
        return get_actor(request).is_superuser

    def has_rotate_permission(self, request: HttpRequest, *_args: Any) -> bool:
        return get_actor(request).is_superuser

    @action(
        description="Rotate",
        permissions=["rotate"],
        dialog={
            "title": "Replace the key of this purpose?",
            "description": (
                "A new key is published and used some seconds later. Tokens and sessions go on, and what is sealed is "
                "sealed anew. Clients that pinned the identity must be given the new one."
            ),
            "form_class": None,
            "form_submit_text": "Rotate",
        },
    )
    def rotate_key(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        key = services.begin_rotation(
            purpose=KeyPurpose(get_row(self, request, object_id).purpose), principal=get_principal(request)
        )
        self.message_user(request, f"Key {key.id} is published, and used in some seconds.", messages.SUCCESS)
        return lead_to(self, key.pk)

    @display(description="state", label=STATE_COLOURS, ordering="state")
    def state_label(self, obj: EncryptionKey) -> str:
        return obj.state

    @display(description="use")
    def use(self, obj: EncryptionKey) -> str:
        return USES[KeyPurpose(obj.purpose)]

    @display(description="age", ordering="created_at")
    def age(self, obj: EncryptionKey) -> str:
        return f"{(timezone.now() - obj.created_at).days} days"

    @display(description="values sealed under it")
    def sealed_values(self, obj: EncryptionKey) -> str:
        return str(services.count_sealed(key_id=obj.id)) if obj.purpose == KeyPurpose.AT_REST.value else "-"

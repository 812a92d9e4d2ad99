"""Pages of keys that are revoked, from their list or from their own page, and never deleted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse

from protocol.admin import get_row, lead_to


class RevocableKeys:
    """Beside a ``ModelAdmin``, whose page adds its own *Revoke* with a dialog of its own words."""

    def revoke(self, request: HttpRequest, keys: Iterable[Any]) -> list[Any]:
        """Revoke them in the name of who is signed in; those that were not revoked before."""
        raise NotImplementedError

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Never: a key stays, as a record of what was done with it, and to verify what it has signed."""
        return False

    def has_revoke_permission(self: Any, request: HttpRequest, *_args: Any) -> bool:
        return bool(self.has_change_permission(request))

    @admin.action(description="Revoke", permissions=["revoke"])
    def revoke_selected(self: Any, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        revoked = self.revoke(request, queryset)
        for key in revoked:
            self.log_change(request, key, "Revoked.")
        self.message_user(request, f"Revoked: {len(revoked)}.", messages.SUCCESS)

    def revoke_from_page(self: Any, request: HttpRequest, object_id: str) -> HttpResponse:
        """Revoke the page's key, and lead back to it."""
        key = get_row(self, request, object_id)
        if self.revoke(request, [key]):
            self.log_change(request, key, "Revoked.")
        return lead_to(self, key.pk)

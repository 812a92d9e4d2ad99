"""Who is signed in to the console, and the permissions that its pages of accounts and roles share."""

from __future__ import annotations

from typing import Any, cast

from django.http import HttpRequest

from security.models import Account


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

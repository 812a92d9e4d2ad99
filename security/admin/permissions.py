"""Who is signed in to the console, in whose name it calls services, and permissions that several pages share."""

from __future__ import annotations

from typing import Any, cast

from django.http import HttpRequest

from protocol.api.authentication import get_remote_address
from protocol.ports import Principal
from security.models import Account
from security.selectors import get_account_principal


def get_actor(request: HttpRequest) -> Account:
    """Who is signed in; the admin site lets nobody else in."""
    return cast("Account", request.user)


def get_principal(request: HttpRequest) -> Principal:
    """Who is signed in, with what its roles grant at this moment: the console's permissions are another matter."""
    return get_account_principal(account=get_actor(request), remote_address=get_remote_address(request))


class SuperuserWrites:
    """Permissions of a page that only superusers change."""

    def has_add_permission(self, request: HttpRequest, *_args: Any) -> bool:
        return get_actor(request).is_superuser

    def has_change_permission(self, request: HttpRequest, *_args: Any, **_kwargs: Any) -> bool:
        return get_actor(request).is_superuser

    def has_delete_permission(self, request: HttpRequest, *_args: Any, **_kwargs: Any) -> bool:
        return get_actor(request).is_superuser

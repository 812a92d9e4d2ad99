"""The console's page for changing one's own password.

The old one is asked for, and counted as at every sign-in: a session that somebody left open must not be a place to
guess it at.
"""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin
from django.contrib.auth.views import PasswordChangeView
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse
from unfold.forms import AdminOwnPasswordChangeForm

from protocol.errors import AuthenticationFailed, SecurityError
from security import services
from security.admin.login import describe_lock
from security.errors import LockedOut
from security.models import Account


class OwnPasswordForm(AdminOwnPasswordChangeForm):
    """unfold's, which asks the services whether the old password is right, and has them store the new one."""

    def __init__(self, *args: Any, remote_address: str | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._remote_address = remote_address

    def clean_old_password(self) -> str:
        password = cast("str", self.cleaned_data["old_password"])
        username, address = self.user.get_username(), self._remote_address
        try:
            services.check_first_factor(username=username, password=password, remote_address=address)
        except SecurityError as error:
            told = services.record_refused_sign_in(error, remote_address=address, subject="password")
            if isinstance(told, LockedOut):
                raise ValidationError(describe_lock(told), code="locked_out") from error
            if isinstance(told, AuthenticationFailed):
                raise ValidationError(self.error_messages["password_incorrect"], code="password_incorrect") from error
            raise told from error
        return password

    def save(self, commit: bool = True) -> Account:
        services.set_password(account=self.user, password=self.cleaned_data["new_password1"])
        return cast("Account", self.user)


class OwnPasswordView(PasswordChangeView):
    """Django's, which tells the form where the request came from."""

    form_class = OwnPasswordForm

    def get_form_kwargs(self) -> dict[str, Any]:
        return {**super().get_form_kwargs(), "remote_address": self.request.META.get("REMOTE_ADDR")}


def change_own_password(request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponseBase:
    """In the place of ``AdminSite.password_change``."""
    view = OwnPasswordView.as_view(
        success_url=reverse("admin:password_change_done"),
        extra_context={**admin.site.each_context(request), **(extra_context or {})},
    )
    return view(request)


admin.site.password_change = change_own_password  # type: ignore[method-assign, assignment]  # the site is unfold's, made before any app of ours

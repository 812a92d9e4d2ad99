"""The console's sign-in: unfold's form, which says of a lock-out that it is one, and for how long."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin
from django.core.exceptions import ValidationError
from unfold.forms import AuthenticationForm

from protocol.errors import IpDenied
from security.errors import LockedOut


class ConsoleLoginForm(AuthenticationForm):
    def clean(self) -> dict[str, Any]:
        try:
            return cast("dict[str, Any]", super().clean())
        except LockedOut as error:
            raise ValidationError(describe_lock(error), code="locked_out") from error
        except IpDenied as error:
            raise ValidationError("This account is not let in from your address.", code="ip_denied") from error


def describe_lock(error: LockedOut) -> str:
    """That and for how long, in whole minutes or seconds, rounded up."""
    seconds = -(-(error.retry_after_ms or 0) // 1000)
    wait = f"{-(-seconds // 60)} min" if seconds > 60 else f"{seconds} s"
    return f"Too many wrong passwords came from your address. Try again in {wait}."


admin.site.login_form = ConsoleLoginForm

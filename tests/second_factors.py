"""A person with a second factor, and the codes that its app shows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone

from security import services
from security.domain.second_factor import get_step, make_code
from security.models import Account, AuthenticatorApp
from security.selectors import get_account_principal


@dataclass(kw_only=True)
class Phone:
    """An authenticator app in somebody's hand; each code that it gives is one that was not given before."""

    secret: bytes
    ahead: int = 0
    recovery_codes: tuple[str, ...] = ()

    def show(self) -> str:
        """The code of now."""
        return make_code(secret=self.secret, step=get_step(now=timezone.now()) + self.ahead)


def enrol(account: Account) -> Phone:
    """Set up an authenticator app for the account. Its first code is used by that; what it shows is the next one's."""
    app_id = services.begin_enrolment(account=account)
    phone = Phone(secret=AuthenticatorApp.objects.get(id=app_id).secret)
    codes = services.confirm_enrolment(
        account=account,
        app_id=app_id,
        code=phone.show(),
        principal=get_account_principal(account=account),
        trace_id="",
    )
    forget_last_step(account)
    phone.recovery_codes = tuple(codes)
    return phone


def forget_last_step(account: Account) -> None:
    """As if the last code had been used some time ago."""
    back = int(timedelta(minutes=5).total_seconds()) // 30
    AuthenticatorApp.objects.filter(account=account).update(last_step=get_step(now=timezone.now()) - back)

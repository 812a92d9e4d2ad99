"""Second factors: setting one up, taking it away, and whether a code is right. Passkeys' ceremonies are ``passkeys``'.

A code counts once: what uses it up is one conditional update or delete, whichever process it came to.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass, field
from typing import Final

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from uuid_utils.compat import NIL, uuid7

from protocol.acting import get_acting
from protocol.errors import AuthenticationFailed
from protocol.ports import Principal
from security.domain import second_factor
from security.models import Account, AuthenticatorApp, Passkey, RecoveryCode
from security.selectors import get_account_principal
from security.services import audit
from security.services.keyring import get_keyring
from security.services.lockout import count_attempt, forgive_attempt

logger = logging.getLogger(__name__)

ADD: Final = "second_factors.add"
REMOVE: Final = "second_factors.remove"
RESET: Final = "second_factors.reset"
USE_RECOVERY_CODE: Final = "second_factors.use_recovery_code"
MAKE_RECOVERY_CODES: Final = "second_factors.make_recovery_codes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """What an authenticator app has to be given, once."""

    secret: str = field(repr=False)
    """Base32, for typing in."""
    uri: str = field(repr=False)
    """The same as ``otpauth://``, for a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeMatch:
    """A code that is right and not yet used up."""

    app_id: uuid.UUID = NIL
    step: int = 0
    recovery_code_id: int | None = None


def begin_enrolment(*, account: Account) -> uuid.UUID:
    """Make a new secret for an authenticator app; one that was never confirmed is replaced. The app's id.

    Who confirms it names it: nobody sets up an app whose secret somebody else was shown.

    Raises:
        ValidationError: the account has an app, or is a service.
    """
    _refuse_service(account)
    with transaction.atomic():
        AuthenticatorApp.objects.filter(account=account, confirmed_at=None).delete()
        if AuthenticatorApp.objects.filter(account=account).exists():
            raise ValidationError("There is an authenticator app already; remove it first.", code="app_exists")
        app = AuthenticatorApp.objects.create(account=account, secret=second_factor.make_secret())
    return app.id


def get_enrolment(*, account: Account, app_id: uuid.UUID) -> Enrolment | None:
    """What the app that is being set up has to be given; ``None``: it is not being set up."""
    app = AuthenticatorApp.objects.filter(id=app_id, account=account, confirmed_at=None).first()
    if app is None:
        return None
    secret = app.secret
    uri = second_factor.make_uri(secret=secret, account=account.username, issuer=settings.SERVER_NAME)
    return Enrolment(secret=second_factor.encode_secret(secret), uri=uri)


def confirm_enrolment(
    *, account: Account, app_id: uuid.UUID, code: str, principal: Principal, trace_id: str
) -> list[str]:
    """Have the app count from now on, since it gave this code. Recovery codes, if there were none.

    Sign-ins with the password alone end: their sessions, tokens and connections.

    Raises:
        ValidationError: the code is not the app's, or no app is being set up.
    """
    app = AuthenticatorApp.objects.filter(id=app_id, account=account, confirmed_at=None).first()
    step = None
    if app is not None:
        step = second_factor.find_step(secret=app.secret, code=code, now=timezone.now(), last_step=0)
    if app is None or step is None:
        raise ValidationError("This is not the app's code. Are the clocks right?", code="wrong_code")
    now = timezone.now()
    with transaction.atomic():
        confirmed = AuthenticatorApp.objects.filter(id=app.id, confirmed_at=None).update(
            confirmed_at=now, last_step=step, last_used_at=now
        )
        if not confirmed:
            raise ValidationError("The app was set up meanwhile.", code="app_exists")
        return add_factor(account=account, kind="authenticator app", principal=principal, trace_id=trace_id)


def add_factor(*, account: Account, kind: str, principal: Principal, trace_id: str) -> list[str]:
    """Record a factor that was added in the same transaction. Recovery codes, if there were none."""
    _move_mark(account)
    audit.record_account_event(
        action=ADD, account=account, outcome="added", principal=principal, trace_id=trace_id, data={"kind": kind}
    )
    if RecoveryCode.objects.filter(account=account).exists():
        return []
    return _replace_recovery_codes(account)


def make_recovery_codes(*, account: Account, principal: Principal, trace_id: str) -> list[str]:
    """New recovery codes; older ones no longer count. They are stored nowhere.

    Raises:
        ValidationError: there is no second factor that they could stand in for.
    """
    with transaction.atomic():
        if not account.has_second_factor:
            raise ValidationError("There is no second factor yet.", code="no_second_factor")
        codes = _replace_recovery_codes(account)
        audit.record_account_event(
            action=MAKE_RECOVERY_CODES, account=account, outcome="made", principal=principal, trace_id=trace_id
        )
    return codes


def remove_app(*, account: Account, principal: Principal, trace_id: str) -> bool:
    """Take the authenticator app away; whether there was one."""
    with transaction.atomic():
        if not AuthenticatorApp.objects.filter(account=account).delete()[0]:
            return False
        _note_removal(account, kind="authenticator app", principal=principal, trace_id=trace_id)
    return True


def remove_passkey(*, account: Account, passkey_id: uuid.UUID, principal: Principal, trace_id: str) -> bool:
    """Take a passkey of the account's away; whether there was one."""
    with transaction.atomic():
        if not Passkey.objects.filter(account=account, id=passkey_id).delete()[0]:
            return False
        _note_removal(account, kind="passkey", principal=principal, trace_id=trace_id)
    return True


def reset_second_factor(*, account: Account, principal: Principal | None, trace_id: str = "") -> bool:
    """Take all second factors and recovery codes away, so that the account can set up new ones; whether it had any.

    ``principal`` is who did it; ``None``: somebody at the server's own command line.
    """
    with transaction.atomic():
        found = [
            model._default_manager.filter(account=account).delete()[0]  # noqa: SLF001  # Django's documented API
            for model in (AuthenticatorApp, Passkey, RecoveryCode)
        ]
        if not any(found) and not account.has_second_factor:
            return False
        _clear_mark(account)
        audit.record_account_event(
            action=RESET, account=account, outcome="reset", principal=principal, trace_id=trace_id
        )
    logger.info("Second factor of account %s reset by %s", account, principal.name if principal else "the command line")
    return True


def check_code(*, account: Account, code: str, remote_address: str | None) -> None:
    """The step after the password: use the code up.

    Raises:
        LockedOut: too many passwords and codes were wrong; this one was not looked at.
        AuthenticationFailed: it is wrong, or was used before.
    """
    count_attempt(username=account.username, remote_address=remote_address)
    match = find_match(account=account, code=code)
    if match is None or not use_up(account=account, match=match):
        logger.info("Code of %s from %s refused", account.id, remote_address)
        raise AuthenticationFailed
    forgive_attempt(username=account.username, remote_address=remote_address)


def find_match(*, account: Account | None, code: str) -> CodeMatch | None:
    """What the code is; ``None``: nothing that counts.

    The same two queries, one opening and three codes, whether there is an account, a factor or a code: how long it
    takes tells nothing.
    """
    account_id = NIL if account is None else account.id
    text = code[: second_factor.MAX_CODE_LENGTH]
    app = AuthenticatorApp.objects.filter(account_id=account_id, confirmed_at__isnull=False).first()
    code_hash = second_factor.hash_recovery_code(account_id=account_id, code=text)
    recovery = RecoveryCode.objects.filter(account_id=account_id, code_hash=code_hash).only("id").first()
    step = second_factor.find_step(
        secret=_open_nothing() if app is None else app.secret,
        code=text,
        now=timezone.now(),
        last_step=0 if app is None else app.last_step,
    )
    if app is not None and step is not None:
        return CodeMatch(app_id=app.id, step=step)
    return None if recovery is None else CodeMatch(recovery_code_id=recovery.pk)


def use_up(*, account: Account, match: CodeMatch) -> bool:
    """Have the code count no more; whether it still did: of two who show one at once, one is let in."""
    if match.recovery_code_id is None:
        return bool(
            AuthenticatorApp.objects.filter(id=match.app_id, last_step__lt=match.step).update(
                last_step=match.step, last_used_at=timezone.now()
            )
        )
    with transaction.atomic():
        if not RecoveryCode.objects.filter(account=account, id=match.recovery_code_id).delete()[0]:
            return False
        left = RecoveryCode.objects.filter(account=account).count()
        acting = get_acting()
        audit.record_account_event(
            action=USE_RECOVERY_CODE,
            account=account,
            outcome="used",
            principal=get_account_principal(account=account),
            trace_id="" if acting is None else acting.trace_id,
            data={"left": left},
        )
    logger.warning("A recovery code of account %s was used; %d are left", account, left)
    return True


def _open_nothing() -> bytes:
    """Takes what opening a secret takes."""
    ring = get_keyring()
    sealed = ring.seal(plaintext=second_factor.NO_SECRET, aad=b"")
    return ring.open(key_id=sealed.key_id, data=sealed.data, aad=b"")


def _replace_recovery_codes(account: Account) -> list[str]:
    codes = [second_factor.make_recovery_code() for _ in range(second_factor.RECOVERY_CODES)]
    RecoveryCode.objects.filter(account=account).delete()
    RecoveryCode.objects.bulk_create(
        RecoveryCode(account=account, code_hash=second_factor.hash_recovery_code(account_id=account.id, code=code))
        for code in codes
    )
    return codes


def _note_removal(account: Account, *, kind: str, principal: Principal, trace_id: str) -> None:
    """Recovery codes go with the last factor: they stand in for one."""
    confirmed = AuthenticatorApp.objects.filter(account=account, confirmed_at__isnull=False)
    if confirmed.exists() or Passkey.objects.filter(account=account).exists():
        _move_mark(account)
    else:
        RecoveryCode.objects.filter(account=account).delete()
        _clear_mark(account)
    audit.record_account_event(
        action=REMOVE, account=account, outcome="removed", principal=principal, trace_id=trace_id, data={"kind": kind}
    )


def _move_mark(account: Account) -> None:
    account.second_factor_mark = uuid7()
    account.save(update_fields=["second_factor_mark"])


def _clear_mark(account: Account) -> None:
    account.second_factor_mark = None
    account.save(update_fields=["second_factor_mark"])


def _refuse_service(account: Account) -> None:
    if account.is_service:
        raise ValidationError(
            f"{account.username} is a service account: it has keys, no password.", code="service_has_no_password"
        )

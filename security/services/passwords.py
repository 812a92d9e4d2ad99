"""Whether a person's name and password are right. Changing one is ``accounts``', counting wrong ones ``lockout``'s."""

from __future__ import annotations

import logging

from django.contrib.auth.hashers import make_password

from protocol.errors import AuthenticationFailed
from security.models import Account
from security.services.addresses import require_address
from security.services.lockout import count_attempt, forgive_attempt, release_attempt
from security.services.second_factors import find_match, use_up

logger = logging.getLogger(__name__)


def check_password(*, username: str, password: str, remote_address: str | None, code: str | None = None) -> Account:
    """The person of this name, whatever its case, whose password this is, and whose code, where one is needed.

    It takes a quarter of a second; call it inside no transaction.

    Raises:
        LockedOut: too many were wrong; this one was not looked at.
        AuthenticationFailed: there is no such person, the account is inactive or a service, the password is wrong, or
            the second factor is wrong or missing; it takes the same time whichever.
    """
    count_attempt(username=username, remote_address=remote_address)
    account = _find(username)
    refusal = _judge(account, password)
    # Looked for whatever was wrong before.
    match = find_match(account=account if refusal is None else None, code=code or "")
    if account is not None and refusal is None and account.needs_second_factor:
        is_shown = match is not None and use_up(account=account, match=match)
        refusal = None if is_shown else "its second factor is wrong or missing"
    if account is None or refusal is not None:
        _log_refusal(account, remote_address, refusal)
        raise AuthenticationFailed
    forgive_attempt(username=username, remote_address=remote_address)
    return account


def check_first_factor(*, username: str, password: str, remote_address: str | None) -> Account:
    """The person whose password this is. Where it needs a second factor, that is still to come: nobody is let in yet.

    For whoever asks for the two one after the other, as the console does: that the password was right is told by it.

    Raises:
        LockedOut: as ``check_password``.
        AuthenticationFailed: as ``check_password``, but for the second factor.
        IpDenied: the password is right, and the account is not let in from this address.
    """
    count_attempt(username=username, remote_address=remote_address)
    account = _find(username)
    refusal = _judge(account, password)
    if account is None or refusal is not None:
        _log_refusal(account, remote_address, refusal)
        raise AuthenticationFailed
    if account.needs_second_factor:
        release_attempt(username=username, remote_address=remote_address)
    else:
        forgive_attempt(username=username, remote_address=remote_address)
    require_address(remote_address, account_id=account.id, api_key=None)
    return account


def sign_in_to_console(*, username: str, password: str, remote_address: str | None, code: str | None = None) -> Account:
    """As ``check_password``, and the account may come from there.

    Raises:
        LockedOut: too many were wrong; this one was not looked at.
        AuthenticationFailed: name, password and code are not a person's.
        IpDenied: they are, and its account is not let in from this address.
    """
    account = check_password(username=username, password=password, code=code, remote_address=remote_address)
    require_address(remote_address, account_id=account.id, api_key=None)
    return account


def _find(username: str) -> Account | None:
    # No database takes others in a text, and no account has them in its name.
    is_name = username.isascii() and username.isprintable()
    return Account.objects.filter(username__iexact=username if is_name else "").first()


def _log_refusal(account: Account | None, remote_address: str | None, refusal: str | None) -> None:
    logger.info("Password of %s from %s refused: %s", account.id if account else "(unknown)", remote_address, refusal)


def _judge(account: Account | None, password: str) -> str | None:
    """Why not; ``None``: it is right. One hash is computed, whatever is the case."""
    text = password.encode("utf-8", errors="surrogatepass").decode("utf-8", errors="replace")
    if account is None or account.is_service or not account.is_active:
        make_password(text)
        if account is None:
            return "unknown"
        return "a service" if account.is_service else "inactive"
    # Hashes once too where the account has no password.
    return None if account.check_password(text) else "wrong"

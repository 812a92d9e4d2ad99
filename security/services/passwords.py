"""Whether a person's name and password are right. Changing one is ``accounts``', counting wrong ones ``lockout``'s."""

from __future__ import annotations

import logging

from django.contrib.auth.hashers import make_password

from protocol.errors import AuthenticationFailed
from security.models import Account
from security.services.addresses import require_address
from security.services.lockout import count_attempt, forgive_attempt

logger = logging.getLogger(__name__)


def check_password(*, username: str, password: str, remote_address: str | None) -> Account:
    """The person of this name, whatever its case, whose password this is.

    It takes a quarter of a second; call it inside no transaction.

    Raises:
        LockedOut: too many were wrong; this one was not looked at.
        AuthenticationFailed: there is no such person, the account is inactive or a service, or the password is wrong;
            it takes the same time whichever.
    """
    count_attempt(username=username, remote_address=remote_address)
    # No database takes these in a text, and no account has them in its name.
    is_name = username.isascii() and username.isprintable()
    account = Account.objects.filter(username__iexact=username).first() if is_name else None
    refusal = _judge(account, password)
    if account is None or refusal is not None:
        logger.info(
            "Password of %s from %s refused: %s", account.id if account else "(unknown)", remote_address, refusal
        )
        raise AuthenticationFailed
    forgive_attempt(username=username, remote_address=remote_address)
    return account


def sign_in_to_console(*, username: str, password: str, remote_address: str | None) -> Account:
    """As ``check_password``, and the account may come from there.

    Raises:
        LockedOut: too many were wrong; this one was not looked at.
        AuthenticationFailed: name and password are not a person's.
        IpDenied: they are, and its account is not let in from this address.
    """
    account = check_password(username=username, password=password, remote_address=remote_address)
    require_address(remote_address, account_id=account.id, api_key=None)
    return account


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

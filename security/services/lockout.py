"""The counters of wrong passwords. The rules are ``domain.lockout``'s.

An attempt is counted before its password is looked at and given back when it was right, so that however many come at
once, no more are looked at than are allowed.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from security.domain import lockout
from security.domain.lockout import Allowance
from security.errors import LockedOut
from security.models import LoginFailure

logger = logging.getLogger(__name__)

PURGE_LIMIT: Final = 1_000
"""Rows deleted in one transaction."""
SHORTEST_WAIT: Final = timedelta(milliseconds=1)
"""Where the counter was given back in between: what was not counted is not looked at."""


def count_attempt(*, username: str, remote_address: str | None) -> None:
    """Count an attempt as wrong until ``forgive_attempt`` says otherwise.

    Raises:
        LockedOut: as many were wrong as are allowed; nothing was counted.
    """
    now = timezone.now()
    address_key = lockout.make_address_key(address=remote_address)
    pair_key = lockout.make_pair_key(username=username, address_key=address_key)
    # The address first, everywhere: two transactions never wait for each other.
    with transaction.atomic():
        wait = max(
            _count(address_key, lockout.ADDRESS_ALLOWANCE, now=now), _count(pair_key, lockout.PAIR_ALLOWANCE, now=now)
        )
        if wait:
            # Undoes what the other counter has counted.
            transaction.set_rollback(True)
    if wait:
        logger.warning("Passwords from %s are locked out for %d s", address_key, wait.total_seconds())
        raise LockedOut(retry_after_ms=-(-wait // timedelta(milliseconds=1)))


def count_address_attempt(*, remote_address: str | None) -> None:
    """As ``count_attempt``, where no name is known; until ``release_address_attempt`` says otherwise.

    Raises:
        LockedOut: as many were wrong as are allowed; nothing was counted.
    """
    address_key = lockout.make_address_key(address=remote_address)
    wait = _count(address_key, lockout.ADDRESS_ALLOWANCE, now=timezone.now())
    if wait:
        logger.warning("Sign-ons from %s are locked out for %d s", address_key, wait.total_seconds())
        raise LockedOut(retry_after_ms=-(-wait // timedelta(milliseconds=1)))


def release_address_attempt(*, remote_address: str | None) -> None:
    """Take back what was counted for this attempt, where no name was known."""
    LoginFailure.objects.filter(
        key=lockout.make_address_key(address=remote_address), clear_at__gt=timezone.now()
    ).update(clear_at=F("clear_at") - lockout.ADDRESS_ALLOWANCE.step)


def forgive_attempt(*, username: str, remote_address: str | None) -> None:
    """The password was right: take back what was counted for the address, and forget the name's wrong ones there."""
    address_key = lockout.make_address_key(address=remote_address)
    with transaction.atomic():
        LoginFailure.objects.filter(key=address_key, clear_at__gt=timezone.now()).update(
            clear_at=F("clear_at") - lockout.ADDRESS_ALLOWANCE.step
        )
        LoginFailure.objects.filter(key=lockout.make_pair_key(username=username, address_key=address_key)).delete()


def release_attempt(*, username: str, remote_address: str | None) -> None:
    """Take back what was counted for this attempt, and nothing else: the password was right, a code is still to come.

    Were the name's wrong ones forgotten here, whoever knows the password could guess at codes without end.
    """
    now = timezone.now()
    address_key = lockout.make_address_key(address=remote_address)
    pair_key = lockout.make_pair_key(username=username, address_key=address_key)
    with transaction.atomic():
        for key, allowance in ((address_key, lockout.ADDRESS_ALLOWANCE), (pair_key, lockout.PAIR_ALLOWANCE)):
            LoginFailure.objects.filter(key=key, clear_at__gt=now).update(clear_at=F("clear_at") - allowance.step)


def purge_login_failures() -> int:
    """Delete counters that count nothing any more; how many."""
    past = LoginFailure.objects.filter(clear_at__lt=timezone.now())
    total = 0
    while batch := list(past.values_list("key", flat=True)[:PURGE_LIMIT]):
        # The condition again: one of them may have begun to count anew.
        total += past.filter(key__in=batch).delete()[0]
    return total


def _count(key: str, allowance: Allowance, *, now: datetime) -> timedelta:
    """Count one; how long to wait instead, where it is not allowed."""
    LoginFailure.objects.bulk_create([LoginFailure(key=key, clear_at=now)], ignore_conflicts=True)
    counter = LoginFailure.objects.filter(key=key)
    # As ``lockout.count_attempt`` has it, in two conditional updates: a past counter begins again, another moves on.
    fresh = lockout.count_attempt(allowance=allowance, clear_at=None, now=now)
    if counter.filter(clear_at__lte=now).update(clear_at=fresh):
        return timedelta(0)
    if counter.filter(clear_at__lte=now + allowance.slack).update(clear_at=F("clear_at") + allowance.step):
        return timedelta(0)
    clear_at = counter.values_list("clear_at", flat=True).first()
    return max(lockout.get_retry_after(allowance=allowance, clear_at=clear_at, now=now), SHORTEST_WAIT)

"""Celery's edge of the security app."""

from __future__ import annotations

from typing import Final

from celery import shared_task

from security import services

ROTATION_SECONDS: Final = 1.0
"""Of sealing anew at a time: other housekeeping waits meanwhile."""


@shared_task(name="security.purge_credentials")
def purge_credentials() -> None:
    """Forget tokens that ended long ago, counters of wrong passwords that count nothing, and old quotas' windows."""
    services.purge_tokens()
    services.purge_login_failures()
    services.purge_limit_usage()


@shared_task(name="security.sweep_port_leases")
def sweep_port_leases() -> None:
    """End leases of ports that have lapsed, and look after the ports of this host."""
    services.sweep_port_leases()


@shared_task(name="security.purge_port_leases")
def purge_port_leases() -> None:
    """Forget leases of ports that were released long ago."""
    services.purge_port_leases()


@shared_task(name="security.advance_rotations")
def advance_rotations() -> None:
    """Go on with rotations of keys that the console began, or whose command was killed."""
    services.advance_rotations(seconds=ROTATION_SECONDS)


@shared_task(name="security.reseal_stragglers")
def reseal_stragglers() -> None:
    """Seal anew what came to lie under a key that is retired."""
    services.reseal_stragglers(seconds=ROTATION_SECONDS)


@shared_task(name="security.warn_of_aged_keys")
def warn_of_aged_keys() -> None:
    """Say once a day which keys of the ring should be replaced."""
    services.warn_of_aged_keys()

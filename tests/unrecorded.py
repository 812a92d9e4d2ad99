"""Making what a test starts from without a trace in the audit record, so that what it looks for there is its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.contrib.auth.signals import user_logged_in
from django.db.models.signals import m2m_changed, post_save

from security import receivers, services

M2M = [(m2m_changed, through, f"security.record.{through.__name__}") for through in services.MEMBERSHIPS]


_depth = 0


@contextmanager
def unrecorded() -> Iterator[None]:
    """What is made within, accounts and roles, and who signs in to the console, is not put on record."""
    global _depth
    _depth += 1
    if _depth == 1:
        stop_recording()
    try:
        yield
    finally:
        _depth -= 1
        if _depth == 0:
            go_on_recording()


def stop_recording() -> None:
    """Take off the receivers that record."""
    post_save.disconnect(dispatch_uid="security.record.save")
    user_logged_in.disconnect(dispatch_uid="security.record.sign_in")
    for signal, through, uid in M2M:
        signal.disconnect(sender=through, dispatch_uid=uid)


def go_on_recording() -> None:
    """Put them back."""
    post_save.connect(receivers.record_save, dispatch_uid="security.record.save")
    user_logged_in.connect(receivers.record_sign_in, dispatch_uid="security.record.sign_in")
    for signal, through, uid in M2M:
        signal.connect(receivers.record_membership, sender=through, dispatch_uid=uid)

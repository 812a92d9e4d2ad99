"""The mark that open connections are watched by.

Every process that has connections reads the mark twice a second, and asks for what changed only when it has moved.
"""

from __future__ import annotations

from django.db import transaction

from protocol import marks, statements
from security.models import RevocationMark
from security.selectors import forget_address_rules


def move_revocation_mark() -> None:
    """Have every open connection looked at again, once the transaction that is open has committed.

    The row is the last that a transaction locks: it orders all revocations.
    """
    forget_address_rules()
    transaction.on_commit(marks.note_moved)
    where, values = {"id": RevocationMark.ONLY_ID}, {"value": statements.Plus(1)}
    if not statements.update(RevocationMark, where=where, values=values):
        RevocationMark.objects.bulk_create([RevocationMark()], ignore_conflicts=True)
        statements.update(RevocationMark, where=where, values=values)

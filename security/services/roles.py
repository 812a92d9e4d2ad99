"""Changing roles and their grants. Built-in roles are the migrations'; who has which role is ``accounts``'.

Each change is one transaction with the mark that a receiver moves: open connections have what changed within a second.
"""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.db import transaction

from security.models import Grant, Role


def save_role(*, role: Role) -> None:
    """Store a new or changed role.

    Raises:
        ValidationError: it is built in, or would not be valid.
    """
    _refuse_builtin(role)
    role.full_clean()
    with transaction.atomic():
        role.save()


def delete_role(*, role: Role) -> None:
    """Take the role with its grants away, from all accounts too.

    Raises:
        ValidationError: it is built in.
    """
    _refuse_builtin(role)
    with transaction.atomic():
        role.delete()


def save_grant(*, grant: Grant) -> None:
    """Store a new or changed grant.

    Raises:
        ValidationError: its role is built in, or a pattern is not valid.
    """
    _refuse_builtin(grant.role)
    grant.full_clean()
    with transaction.atomic():
        grant.save()


def delete_grant(*, grant: Grant) -> None:
    """Take the grant away.

    Raises:
        ValidationError: its role is built in.
    """
    _refuse_builtin(grant.role)
    with transaction.atomic():
        grant.delete()


def _refuse_builtin(role: Role) -> None:
    # An update of the server may change it again, and would undo what was done by hand.
    if role.is_builtin:
        raise ValidationError(f"The role {role} is built in; make a role of your own.", code="role_builtin")

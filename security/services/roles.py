"""Changing roles and their grants. Built-in roles are the migrations'; who has which role is ``accounts``'."""

from __future__ import annotations

from django.core.exceptions import ValidationError

from security.models import Grant, Role


def save_role(*, role: Role) -> None:
    """Store a new or changed role.

    Raises:
        ValidationError: it is built in, or would not be valid.
    """
    _refuse_builtin(role)
    role.full_clean()
    role.save()


def delete_role(*, role: Role) -> None:
    """Take the role with its grants away, from all accounts too.

    Raises:
        ValidationError: it is built in.
    """
    _refuse_builtin(role)
    role.delete()


def save_grant(*, grant: Grant) -> None:
    """Store a new or changed grant; it counts from its accounts' next authentication on.

    Raises:
        ValidationError: its role is built in, or a pattern is not valid.
    """
    _refuse_builtin(grant.role)
    grant.full_clean()
    grant.save()


def delete_grant(*, grant: Grant) -> None:
    """Take the grant away, from its accounts' next authentication on.

    Raises:
        ValidationError: its role is built in.
    """
    _refuse_builtin(grant.role)
    grant.delete()


def _refuse_builtin(role: Role) -> None:
    # An update of the server may change it again, and would undo what was done by hand.
    if role.is_builtin:
        raise ValidationError(f"The role {role} is built in; make a role of your own.", code="role_builtin")

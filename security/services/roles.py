"""Changing roles and their grants. Built-in roles are ``domain.builtin_roles``'; who has which is ``accounts``'.

Each change is one transaction with the mark that a receiver moves: open connections have what changed within a second.
"""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.db import transaction

from protocol.errors import Misconfigured
from security.domain.builtin_roles import BUILTIN_ROLES, BuiltinRole
from security.models import Grant, Role
from security.services.revocation import move_revocation_mark


def synchronise_builtin_roles() -> None:
    """Bring the built-in roles in the database to what the code says; nothing is written where they are so already.

    A built-in role that the code does not know stays: while a cluster is updated, a node of before may still start.

    Raises:
        Misconfigured: a role made by hand has the name of a built-in one.
    """
    if all(map(_is_as_built, BUILTIN_ROLES)):
        return
    with transaction.atomic():
        # Locked first: of two nodes that start together one writes, and the other finds it written.
        move_revocation_mark()
        for builtin in BUILTIN_ROLES:
            if not _is_as_built(builtin):
                _build(builtin)


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


def _is_as_built(builtin: BuiltinRole) -> bool:
    role = Role.objects.filter(name=builtin.name, is_builtin=True).prefetch_related("grants").first()
    if role is None or (role.description, role.minimum_level) != (builtin.description, ""):
        return False
    grants = role.grants.all()
    return len(grants) == len(builtin.grants) and {pair for grant in grants if (pair := _get_pair(grant))} == (
        builtin.grants
    )


def _build(builtin: BuiltinRole) -> None:
    role = Role.objects.filter(name=builtin.name).first() or Role(name=builtin.name, is_builtin=True)
    if not role.is_builtin:
        raise Misconfigured(f"The role {role} was made by hand, and the server comes with one of that name: rename it.")
    role.description, role.minimum_level = builtin.description, ""
    role.save()
    missing = set(builtin.grants)
    for grant in role.grants.all():
        pair = _get_pair(grant)
        if pair in missing:
            missing.remove(pair)
        else:
            grant.delete()
    for action_pattern, resource_pattern in sorted(missing):
        role.grants.create(action_pattern=action_pattern, resource_pattern=resource_pattern)


def _get_pair(grant: Grant) -> tuple[str, str] | None:
    """What a built-in role's grant has; ``None`` where it is none of that kind."""
    if grant.effect != Grant.Effect.ALLOW or grant.conditions:
        return None
    return grant.action_pattern, grant.resource_pattern

"""Putting on record what changes in accounts, roles, grants, keys and groups, whoever changes it and by which way.

By the ORM's signals, and not only in the services: Django's forms save memberships themselves, and a shell or another
app writes past the services. An event has each changed field with what it was and what it is; of a secret only that it
changed. ``update`` of a queryset sends no signal: services that use it record their act themselves.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final

from django.contrib.auth.models import Group, Permission
from django.db import models

from protocol.acting import get_acting
from protocol.ports import Resource
from security.models import Account, ApiKey, Grant, Role
from security.services import audit

CHANGE_KINDS: Final[Mapping[type[models.Model], str]] = {
    Account: "account",
    Role: "role",
    Grant: "grant",
    ApiKey: "api_key",
    Group: "group",
}
"""The models whose changes are recorded, and what each is called: the actions are ``<kind>s.create``, ``.change``,
``.delete``. One more model is one more line."""
SECRET_FIELDS: Final = frozenset({"password", "key_hash"})
"""Of which a change is told, and no value."""
UNRECORDED_FIELDS: Final = frozenset({"id", "last_login", "last_used_at", "created_at", "second_factor_mark"})
"""What changes by mere use, or never, or with an act that is recorded as itself."""
MEMBERSHIPS: Final[Mapping[type[models.Model], str]] = {
    Account.roles.through: "roles",
    Account.groups.through: "groups",
    Account.user_permissions.through: "user_permissions",
    Group.permissions.through: "permissions",
}
"""The relations whose changes are recorded, as changes of the row that has them."""
MEMBERSHIP_ACTIONS: Final = {"post_add": "added", "post_remove": "removed"}
HIDDEN: Final = "(secret)"


def load_stored(row: models.Model, *, update_fields: Collection[str] | None) -> dict[str, Any] | None:
    """The fields as the database has them now, before they are written; ``None`` where nothing recorded may change."""
    names = _get_recorded_names(row, update_fields)
    if not names:
        return None
    manager = type(row)._base_manager  # noqa: SLF001  # Django's documented API
    return manager.filter(pk=row.pk).values(*names).first()


def record_save(
    row: models.Model, *, before: Mapping[str, Any] | None, created: bool, update_fields: Collection[str] | None
) -> None:
    """A row was made, or changed from what it was; nothing where it is as it was."""
    names = _get_recorded_names(row, update_fields)
    after = {name: getattr(row, name) for name in names}
    if created:
        _record(
            row, "create", "created", {"fields": {name: _show(name, value) for name, value in after.items() if value}}
        )
        return
    changed = {
        name: [_show(name, before[name]), _show(name, after[name])]
        for name in names
        if before is not None and before[name] != after[name]
    }
    if changed:
        _record(row, "change", "changed", {"changed": changed})


def record_delete(row: models.Model) -> None:
    """A row was deleted."""
    _record(row, "delete", "deleted", {})


def record_membership(
    row: models.Model, *, relation: str, action: str, model: type[models.Model], keys: Collection[Any]
) -> None:
    """Rows were put into a relation of the row, or taken from it: an account's roles, a group's permissions."""
    named = model._base_manager.filter(pk__in=keys)  # noqa: SLF001  # Django's documented API
    _record(row, "change", "changed", {relation: {MEMBERSHIP_ACTIONS[action]: sorted(map(_name, named))}})


def record_clearing(row: models.Model, *, relation: str) -> None:
    """All were taken from a relation of the row."""
    names = sorted(map(_name, getattr(row, relation).all()))
    if names:
        _record(row, "change", "changed", {relation: {"removed": names}})


def record_clearing_from_other_side(
    row: models.Model, *, through: type[models.Model], model: type[models.Model]
) -> None:
    """The row was taken from this relation of all rows of the model: a change of each."""
    relation = MEMBERSHIPS[through]
    for owner in model._base_manager.filter(**{relation: row.pk}):  # noqa: SLF001  # Django's documented API
        record_membership(owner, relation=relation, action="post_remove", model=type(row), keys=[row.pk])


def _record(row: models.Model, verb: str, outcome: str, data: Mapping[str, Any]) -> None:
    kind = CHANGE_KINDS[type(row)]
    acting = get_acting()
    audit.record_event(
        action=f"{kind}s.{verb}",
        principal=None if acting is None else acting.find_principal(),
        resource=Resource(kind=kind, name=_name(row)[:255]),
        outcome=outcome,
        trace_id="" if acting is None else acting.trace_id,
        data={"id": str(row.pk), **data},
    )


def _get_recorded_names(row: models.Model, update_fields: Collection[str] | None) -> list[str]:
    return [
        field.attname
        for field in row._meta.concrete_fields
        if field.name not in UNRECORDED_FIELDS
        and not field.primary_key
        and (update_fields is None or field.name in update_fields or field.attname in update_fields)
    ]


def _name(row: models.Model) -> str:
    if isinstance(row, Grant):
        return f"{row.role}: {row}"
    if isinstance(row, Permission):
        return f"{row.content_type.app_label}.{row.codename}"
    return str(row)


def _show(name: str, value: Any) -> Any:
    if name in SECRET_FIELDS:
        return HIDDEN
    if isinstance(value, uuid.UUID | datetime):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str | list | dict) else str(value)

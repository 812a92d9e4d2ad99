"""Model fields that are sealed in the database: bytes in Python, AES-256-GCM under the vault's key in the column.

A value is bound to its model, its field and its row, so that it opens nowhere else. The id of the key that sealed it
stands in a column of its own beside it, by which rows under an old key are found. What belongs here is the way between
instance and column; keys are the vault's (``ports.Vault``).

    class Webhook(models.Model):
        secret = SealedField(key_id_field="secret_key_id")
        secret_key_id = KeyIdField()
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.apps import apps
from django.core import checks
from django.db import models
from django.db.models.query_utils import DeferredAttribute

from protocol import ports

KEY_ID_LENGTH: Final = 16


@dataclass(frozen=True, slots=True)
class SealedValue:
    """What the column holds; it is opened when somebody asks for it."""

    data: bytes = dataclasses.field(repr=False)
    was_read: bool = False
    """From the database: sealed for the row that it was read from."""


@dataclass(frozen=True, slots=True)
class Plain:
    """Set instead of bytes where a value need not be confidential: it is stored as it is, and costs no more."""

    data: bytes = dataclasses.field(repr=False)


class SealedAttribute(DeferredAttribute):
    """Opens what came from the database each time that it is asked for, and keeps what is set until it is saved."""

    field: SealedField

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        value = super().__get__(instance, cls)
        if isinstance(value, Plain):
            return value.data
        if not isinstance(value, SealedValue):
            return value
        key_id = getattr(instance, self.field.key_id_field)
        if key_id is None and self.field.allows_plain:
            return value.data
        return self.field.open(data=value.data, key_id=key_id, row=self.field.get_row(instance))

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self.field.attname] = value


class KeyIdField(models.CharField):  # type: ignore[type-arg]  # not subscriptable at run time
    """The id of the key that sealed the row's value; ``None`` where there is none. It is set by saving."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "max_length": KEY_ID_LENGTH, "null": True, "editable": False})

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:  # noqa: FBT001  # Django's signature
        # Whichever of the two columns comes first, the value is sealed before its key is told.
        for field in _list_fields(type(model_instance)):
            if field.key_id_field == self.name:
                field.pre_save(model_instance, add)
        return super().pre_save(model_instance, add)


class SealedField(models.BinaryField):  # type: ignore[type-arg]  # not subscriptable at run time
    """Bytes that are sealed when the row is saved. They cannot be looked for, nor be set by ``QuerySet.update``."""

    descriptor_class = SealedAttribute

    def __init__(
        self,
        *args: Any,
        key_id_field: str,
        bound_to: Sequence[str] = ("pk",),
        allows_plain: bool = False,
        **kwargs: Any,
    ) -> None:
        """``bound_to`` names the attributes that tell the row, where its ``pk`` is given only by the database.

        ``allows_plain``: a value set as `Plain` is stored unsealed, with no key's id beside it.
        """
        super().__init__(*args, **kwargs)
        self.key_id_field = key_id_field
        self.bound_to = tuple(bound_to)
        self.allows_plain = allows_plain

    def deconstruct(self) -> tuple[str, str, Sequence[Any], dict[str, Any]]:
        name, path, arguments, keywords = super().deconstruct()
        return (
            name,
            path,
            arguments,
            {
                **keywords,
                "key_id_field": self.key_id_field,
                "bound_to": self.bound_to,
                "allows_plain": self.allows_plain,
            },
        )

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        return [*super().check(**kwargs), *self._check_key_id_field()]

    def contribute_to_class(self, cls: type[models.Model], name: str, *args: Any, **kwargs: Any) -> None:
        super().contribute_to_class(cls, name, *args, **kwargs)
        if not cls._meta.abstract and cls.__module__ != "__fake__":
            models.signals.pre_save.connect(self._refuse_half, sender=cls, dispatch_uid=f"sealed.{name}")

    def get_lookup(self, lookup_name: str) -> Any:
        return super().get_lookup(lookup_name) if lookup_name == "isnull" else None

    def from_db_value(self, value: Any, *_: Any) -> SealedValue | None:
        return None if value is None else SealedValue(bytes(value), was_read=True)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:  # noqa: ARG002, FBT001, FBT002  # Django's
        if value is not None and not isinstance(value, SealedValue):
            raise TypeError(f"{self} is sealed by saving its row, not by a query")
        return None if value is None else connection.Database.Binary(value.data)

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:  # noqa: FBT001  # Django's signature
        value = model_instance.__dict__.get(self.attname)
        if isinstance(value, SealedValue):
            if add and value.was_read:
                raise ValueError(f"{self} of another row does not open in a new one: set its plaintext")
            return value
        key_id, kept = self._seal_value(value, model_instance)
        setattr(model_instance, self.key_id_field, key_id)
        setattr(model_instance, self.attname, kept)
        return kept

    def get_row(self, instance: models.Model) -> tuple[Any, ...]:
        """What tells the row apart: the values of ``bound_to``."""
        return tuple(getattr(instance, name) for name in self.bound_to)

    def seal(self, *, plaintext: bytes, row: Sequence[Any]) -> ports.Sealed:
        """Seal a value for the row whose ``bound_to`` are these."""
        return ports.get_vault().seal(plaintext=plaintext, aad=self._make_aad(row))

    def make_value(self, sealed: ports.Sealed) -> SealedValue:
        """What the column holds of it, for a query that writes both columns at once."""
        return SealedValue(sealed.data)

    def open(self, *, data: bytes, key_id: str, row: Sequence[Any]) -> bytes:
        """What was sealed for this row."""
        return ports.get_vault().open(key_id=key_id, data=data, aad=self._make_aad(row))

    def _seal_value(self, value: Any, instance: models.Model) -> tuple[str | None, SealedValue | None]:
        if value is None:
            return None, None
        if isinstance(value, Plain) and self.allows_plain:
            return None, SealedValue(value.data)
        sealed = self.seal(plaintext=value, row=self.get_row(instance))
        return sealed.key_id, SealedValue(sealed.data)

    def _make_aad(self, row: Sequence[Any]) -> bytes:
        if len(row) != len(self.bound_to) or None in row:
            raise ValueError(f"{self} is bound to {', '.join(self.bound_to)}, which must be known before it is sealed")
        parts = (self.model._meta.label_lower, self.name, *map(str, row))
        return "".join(f"{len(part)}:{part}\n" for part in parts).encode()

    def _refuse_half(self, *, update_fields: frozenset[str] | None = None, **_: Any) -> None:
        if update_fields is not None and (self.name in update_fields) != (self.key_id_field in update_fields):
            raise ValueError(f"{self} and {self.key_id_field} are saved together")

    def _check_key_id_field(self) -> list[checks.CheckMessage]:
        fields = {field.name: field for field in self.model._meta.concrete_fields}
        users = [field.name for field in _list_fields(self.model) if field.key_id_field == self.key_id_field]
        if isinstance(fields.get(self.key_id_field), KeyIdField) and len(users) == 1 and self._is_indexed():
            return []
        return [
            checks.Error(
                f"'{self.key_id_field}' must be a KeyIdField of the model, of this field alone, and begin an index.",
                obj=self,
                id="protocol.E001",
            )
        ]

    def _is_indexed(self) -> bool:
        return any(index.fields[:1] == [self.key_id_field] for index in self.model._meta.indexes)


def list_sealed_fields() -> list[SealedField]:
    """Every sealed field of every installed model."""
    return [field for model in apps.get_models() for field in _list_fields(model)]


def _list_fields(model: type[models.Model]) -> list[SealedField]:
    return [field for field in model._meta.concrete_fields if isinstance(field, SealedField)]

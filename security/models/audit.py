"""The audit record and its chain: rows that are only ever added.

The ORM refuses everything else here, the database by triggers (migration ``audit_chain``): whoever gets past the one
meets the other, and whoever takes the triggers away is found by the chain.
"""

from __future__ import annotations

from typing import Any, TypeVar

from django.db import models
from django.db.models import F, Q
from uuid_utils.compat import uuid7

Row = TypeVar("Row", bound=models.Model)


class AppendOnly(Exception):
    """A row of the audit record is never changed or deleted."""


class AppendOnlyQuerySet(models.QuerySet[Row]):
    """Rows are added; nothing else is ever done to them."""

    def update(self, **_: Any) -> int:
        raise AppendOnly

    def delete(self) -> tuple[int, dict[str, int]]:
        raise AppendOnly

    def bulk_create(self, objs: Any, *args: Any, **kwargs: Any) -> list[Row]:
        if kwargs.get("update_conflicts"):
            raise AppendOnly
        return super().bulk_create(objs, *args, **kwargs)

    def _update(self, *_: Any, **__: Any) -> int:
        # What ``save`` of an existing row calls.
        raise AppendOnly

    def _raw_delete(self, *_: Any, **__: Any) -> int:
        # What deletions by Django's collector call.
        raise AppendOnly


class AppendOnlyModel(models.Model):
    """What a row of the record can do: come."""

    objects = AppendOnlyQuerySet.as_manager()

    class Meta:
        abstract = True
        base_manager_name = "objects"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise AppendOnly
        super().save(*args, **kwargs)

    def delete(self, *_: Any, **__: Any) -> tuple[int, dict[str, int]]:
        raise AppendOnly


class AuditEvent(AppendOnlyModel):
    """Who did what to what, and what came of it. No foreign keys: it outlives what it names."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    at = models.DateTimeField(auto_now_add=True)
    actor_id = models.UUIDField(null=True, help_text="The account; empty: the server itself.")
    actor_name = models.CharField(max_length=150, blank=True, help_text="The account's name at that time.")
    credential_id = models.UUIDField(null=True, help_text="The key or token that was shown.")
    action = models.CharField(max_length=100)
    resource_kind = models.CharField(max_length=50)
    resource_name = models.CharField(max_length=255)
    outcome = models.CharField(max_length=50)
    trace_id = models.CharField(max_length=32, blank=True)
    data_json = models.TextField(default="{}")

    class Meta(AppendOnlyModel.Meta):
        ordering = ["-at"]
        indexes = [
            # In the order of the list to the last, and with what it is filtered by: as those of runs.
            models.Index(fields=["-at", "-id", "action", "outcome"], name="audit_at"),
            models.Index(fields=["actor_id", "-at", "-id", "action", "outcome"], name="audit_actor"),
            models.Index(fields=["resource_name", "-at", "-id"], name="audit_resource"),
            models.Index(fields=["trace_id"], name="audit_trace"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.resource_kind}:{self.resource_name} {self.outcome}"


class AuditSeal(AppendOnlyModel):
    """An event's place in the chain, and the hash that covers it and all before it."""

    position = models.PositiveBigIntegerField(primary_key=True)
    event = models.OneToOneField(AuditEvent, on_delete=models.PROTECT, related_name="seal")
    previous = models.CharField(max_length=64, help_text="The hash at the position before.")
    hash = models.CharField(max_length=64)

    class Meta(AppendOnlyModel.Meta):
        ordering = ["-position"]
        constraints = [models.CheckConstraint(condition=Q(position__gt=0), name="audit_seal_position_positive")]

    def __str__(self) -> str:
        return f"{self.position}: {self.hash}"


class AuditHead(AppendOnlyModel):
    """A signed statement of how far the chain had come."""

    number = models.PositiveBigIntegerField(primary_key=True)
    position = models.PositiveBigIntegerField(unique=True)
    hash = models.CharField(max_length=64)
    signed_at = models.DateTimeField()
    key_id = models.CharField(max_length=64)
    signature = models.CharField(max_length=86, help_text="Ed25519, base64url without padding.")

    class Meta(AppendOnlyModel.Meta):
        ordering = ["-number"]
        constraints = [models.CheckConstraint(condition=Q(number__gt=0), name="audit_head_number_positive")]

    def __str__(self) -> str:
        return f"{self.number}: {self.position} {self.hash}"


class AuditChain(models.Model):
    """One row: how far the chain has come. Whoever moves it on from where it was has won the positions after it."""

    ONLY_ID = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=ONLY_ID)
    position = models.PositiveBigIntegerField(default=0)
    hash = models.CharField(max_length=64)
    head_number = models.PositiveBigIntegerField(default=0, help_text="Of the last signed head.")
    head_position = models.PositiveBigIntegerField(default=0, help_text="Where that is.")
    head_signed_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(id=1), name="audit_chain_one_row"),
            models.CheckConstraint(condition=Q(head_position__lte=F("position")), name="audit_chain_head_within"),
        ]

    def __str__(self) -> str:
        return f"{self.position}: {self.hash}"


class UnsealedEvent(models.Model):
    """An event that has no seal yet. A trigger adds it with the event, in the same transaction; the sealer takes it.

    So that the unsealed are found without looking at the sealed, and in whatever order transactions commit.
    """

    event = models.OneToOneField(
        AuditEvent, on_delete=models.PROTECT, primary_key=True, db_constraint=False, related_name="unsealed"
    )

    def __str__(self) -> str:
        return str(self.event_id)

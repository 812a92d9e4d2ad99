"""The audit record: rows that are only ever added."""

from __future__ import annotations

from typing import Any

from django.db import models
from uuid_utils.compat import uuid7


class AuditQuerySet(models.QuerySet["AuditEvent"]):
    """Events are added; nothing else is ever done to them."""

    def update(self, **_: Any) -> int:
        raise AppendOnly

    def delete(self) -> tuple[int, dict[str, int]]:
        raise AppendOnly


class AppendOnly(Exception):
    """An audit event is never changed or deleted."""


class AuditEvent(models.Model):
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

    objects = AuditQuerySet.as_manager()

    class Meta:
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

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise AppendOnly
        super().save(*args, **kwargs)

    def delete(self, *_: Any, **__: Any) -> tuple[int, dict[str, int]]:
        raise AppendOnly

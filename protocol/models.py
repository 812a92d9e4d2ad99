"""What must outlive a process: sessions, and the messages that a session is still owed."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from uuid_utils.compat import uuid7

from protocol.domain.messages import SecurityLevel
from protocol.sealed_fields import KeyIdField, SealedField


class Session(models.Model):
    """One authenticated connection, from the authentication answer to its end."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    account = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="sessions")
    credential_id = models.UUIDField(help_text="The key or token that it was opened with.")
    channel = models.CharField(max_length=100, help_text="The channel-layer name of the process that owns it.")
    client_name = models.CharField(max_length=100, blank=True)
    client_version = models.CharField(max_length=50, blank=True)
    remote_address = models.GenericIPAddressField(null=True)
    address_key = models.CharField(max_length=50, blank=True, help_text="What its address is counted as.")
    security_level = models.CharField(
        max_length=10,
        choices=[(level.value, level.value) for level in SecurityLevel],
        default=SecurityLevel.STANDARD.value,
        help_text="Its connection's; from high on what its outbox holds is sealed.",
    )
    last_sequence = models.PositiveBigIntegerField(default=0, help_text="The highest number given to a message.")
    acknowledged_sequence = models.PositiveBigIntegerField(default=0, help_text="The client has everything up to here.")
    created_at = models.DateTimeField(auto_now_add=True)
    seen_at = models.DateTimeField(auto_now_add=True, help_text="When its process last said that it is connected.")
    ended_at = models.DateTimeField(null=True, blank=True)
    close_code = models.PositiveSmallIntegerField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["-created_at"]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(security_level__in=[level.value for level in SecurityLevel]),
                name="session_level_known",
            )
        ]
        indexes: ClassVar = [
            models.Index(fields=["seen_at"], condition=models.Q(ended_at=None), name="session_live_seen"),
            models.Index(fields=["-created_at"], name="session_created"),
            # What limits on connections count: among many that have ended, the few that have not.
            models.Index(fields=["account"], condition=models.Q(ended_at=None), name="session_live_account"),
            models.Index(fields=["address_key"], condition=models.Q(ended_at=None), name="session_live_address"),
        ]

    def __str__(self) -> str:
        return f"{self.client_name or 'session'} {self.id}"


class OutboxMessage(models.Model):
    """A numbered message (protocol.md section 10), written in the transaction that records its effect."""

    id = models.BigAutoField(primary_key=True)
    session = models.ForeignKey(Session, on_delete=models.CASCADE, related_name="outbox")
    sequence = models.PositiveBigIntegerField()
    correlation_id = models.CharField(max_length=64, help_text="The command that it answers for good.")
    kind = models.CharField(max_length=16, help_text="response or error")
    # Bound to what is known before the row is written: its id is the database's to give.
    payload = SealedField(
        key_id_field="key_id",
        bound_to=("session_id", "sequence"),
        allows_plain=True,
        help_text="The payload as JSON; the owner of the socket encodes it for the wire.",
    )
    key_id = KeyIdField(help_text="Of the at-rest key that the payload is sealed under; empty: it is not.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["session", "sequence"], name="outbox_session_sequence"),
            models.UniqueConstraint(fields=["session", "correlation_id"], name="outbox_session_correlation"),
            models.CheckConstraint(condition=models.Q(kind__in=["response", "error"]), name="outbox_kind"),
        ]
        indexes: ClassVar = [
            # Few rows are sealed: the others cost this index nothing.
            models.Index(fields=["key_id", "id"], condition=models.Q(key_id__isnull=False), name="outbox_key"),
        ]

    def __str__(self) -> str:
        return f"{self.session_id}:{self.sequence}"


class WriteCheck(models.Model):
    """One row, written now and then to see that the database takes writes: one that is full can still be read."""

    ONLY_ID = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=ONLY_ID)
    written_at = models.DateTimeField()

    class Meta:
        constraints: ClassVar = [models.CheckConstraint(condition=models.Q(id=1), name="write_check_one_row")]

    def __str__(self) -> str:
        return f"written at {self.written_at:%Y-%m-%d %H:%M:%S}"

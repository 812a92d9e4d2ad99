"""Leases of ports, and ports that are given to nobody for a time; both are of one host, a node's name."""

from __future__ import annotations

from datetime import timedelta

from django.db import models
from django.db.models import F, Q
from uuid_utils.compat import uuid7

from security.domain.port_leases import LIVE_STATES, EndReason, HolderKind, LeaseState, QuarantineReason
from security.domain.port_ranges import HIGHEST_PORT, LOWEST_PORT
from security.models.accounts import Account

MAX_PURPOSE_LENGTH = 200
MAX_HOST_LENGTH = 200


class PortLease(models.Model):
    """A port of a host, held by an account for a time. The row is the truth about who has it."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    host = models.CharField(max_length=MAX_HOST_LENGTH, help_text="The node whose port it is.")
    port = models.PositiveIntegerField()
    state = models.CharField(max_length=10, default=LeaseState.RESERVED.value)
    purpose = models.CharField(max_length=MAX_PURPOSE_LENGTH, help_text="What its holder says that it is for.")
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="port_leases", db_index=False)
    holder_kind = models.CharField(max_length=10, help_text="What it is held for, and ends with.")
    holder_id = models.UUIDField(null=True, help_text="Of the session or run; empty: the account alone.")
    ttl_ms = models.PositiveBigIntegerField(help_text="How long it lasts from its allocation, and from each renewal.")
    message_id = models.CharField(max_length=64, blank=True, help_text="The command that asked for it.")
    idempotency_key = models.CharField(max_length=255, blank=True, help_text="The caller's; emptied after 24 hours.")
    arguments_hash = models.CharField(max_length=64, help_text="What the same call again must have the same of.")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    active_at = models.DateTimeField(null=True, help_text="When its port was first seen in use.")
    ended_at = models.DateTimeField(null=True)
    end_reason = models.CharField(max_length=20, blank=True)
    drain_until = models.DateTimeField(null=True, help_text="A port in use for longer is put into quarantine.")
    released_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            # The one that makes a lease a lease.
            models.UniqueConstraint(
                fields=["host", "port"],
                condition=Q(state__in=[state.value for state in LIVE_STATES]),
                name="port_lease_one_live",
            ),
            models.UniqueConstraint(
                fields=["holder_id", "message_id"], condition=~Q(message_id=""), name="port_lease_message"
            ),
            models.UniqueConstraint(
                fields=["account", "idempotency_key"], condition=~Q(idempotency_key=""), name="port_lease_key"
            ),
            models.CheckConstraint(
                condition=Q(state__in=[state.value for state in LeaseState]), name="port_lease_state_known"
            ),
            models.CheckConstraint(
                condition=Q(port__gte=LOWEST_PORT, port__lte=HIGHEST_PORT), name="port_lease_port_possible"
            ),
            models.CheckConstraint(
                condition=Q(holder_kind=HolderKind.ACCOUNT.value, holder_id=None)
                | Q(
                    holder_kind__in=[HolderKind.SESSION.value, HolderKind.EXECUTION.value],
                    holder_id__isnull=False,
                ),
                name="port_lease_holder_known",
            ),
            models.CheckConstraint(
                condition=Q(
                    state__in=[LeaseState.RESERVED.value, LeaseState.ACTIVE.value], ended_at=None, end_reason=""
                )
                | Q(
                    state__in=[LeaseState.DRAINING.value, LeaseState.RELEASED.value],
                    ended_at__isnull=False,
                    drain_until__isnull=False,
                    end_reason__in=[reason.value for reason in EndReason],
                ),
                name="port_lease_ended_iff_draining",
            ),
            models.CheckConstraint(
                condition=Q(state=LeaseState.RELEASED.value, released_at__isnull=False)
                | (~Q(state=LeaseState.RELEASED.value) & Q(released_at=None)),
                name="port_lease_released_iff_final",
            ),
            models.CheckConstraint(condition=Q(expires_at__gt=F("created_at")), name="port_lease_lasts"),
        ]
        indexes = [
            # In the order of the lists to the last.
            models.Index(fields=["-created_at", "-id", "state"], name="port_lease_created"),
            models.Index(fields=["account", "-created_at", "-id", "state"], name="port_lease_account"),
            models.Index(fields=["holder_id"], condition=Q(released_at=None), name="port_lease_holder"),
            models.Index(fields=["expires_at"], condition=Q(ended_at=None), name="port_lease_expiry"),
            models.Index(fields=["host", "released_at"], name="port_lease_released"),
        ]

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def ttl(self) -> timedelta:
        return timedelta(milliseconds=self.ttl_ms)


class PortQuarantine(models.Model):
    """A port that is given to nobody for a time, as something else has it. What was is in the audit record."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    host = models.CharField(max_length=MAX_HOST_LENGTH)
    port = models.PositiveIntegerField()
    reason = models.CharField(max_length=20)
    found = models.CharField(max_length=500, blank=True, help_text="What was seen there.")
    created_at = models.DateTimeField()
    until = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(fields=["host", "port"], name="port_quarantine_unique"),
            models.CheckConstraint(
                condition=Q(reason__in=[reason.value for reason in QuarantineReason]),
                name="port_quarantine_reason_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

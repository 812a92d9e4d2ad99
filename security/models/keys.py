"""The key ring as it is stored: every secret half wrapped by the master key."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import Q
from django.db.models.functions import Length
from django.db.models.lookups import Exact
from django.utils import timezone

from security.domain.key_states import ALGORITHMS, KeyAlgorithm, KeyPurpose, RingKeyState
from security.domain.keyring import ID_LENGTH
from security.domain.master_keys import WRAPPED_BYTES, WRAPPED_EMPTY_BYTES, KeyLabel


class EncryptionKey(models.Model):
    """One key of the ring (``domain.key_states``). Rows are never deleted: old signatures name them."""

    class Purpose(models.TextChoices):
        AT_REST = KeyPurpose.AT_REST.value, "at rest"
        JWT = KeyPurpose.JWT.value, "tokens"
        IDENTITY = KeyPurpose.IDENTITY.value, "identity"
        AUDIT = KeyPurpose.AUDIT.value, "audit"

    class State(models.TextChoices):
        PENDING = RingKeyState.PENDING.value, "pending"
        ACTIVE = RingKeyState.ACTIVE.value, "active"
        RETIRING = RingKeyState.RETIRING.value, "retiring"
        RETIRED = RingKeyState.RETIRED.value, "retired"

    id = models.CharField(primary_key=True, max_length=ID_LENGTH, editable=False)
    purpose = models.CharField(max_length=10, choices=Purpose)
    state = models.CharField(max_length=10, choices=State)
    algorithm = models.CharField(max_length=15)
    public_key = models.BinaryField(default=b"", help_text="Raw, 32 bytes; empty where there is none.")
    wrapped = models.BinaryField(help_text="Nonce, secret half and tag; without the secret half where it was wiped.")
    master_key_id = models.CharField(max_length=ID_LENGTH)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    activates_at = models.DateTimeField(
        default=timezone.now, help_text="When it may be used first; until then it is only published."
    )
    activated_at = models.DateTimeField(null=True)
    replaced_at = models.DateTimeField(null=True)
    retired_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["purpose", "-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["purpose"], condition=Q(state="active"), name="security_key_one_active_a_purpose"
            ),
            # A second rotation joins the first one.
            models.UniqueConstraint(
                fields=["purpose"], condition=Q(state="pending"), name="security_key_one_pending_a_purpose"
            ),
            models.CheckConstraint(
                condition=Q(state__in=[state.value for state in RingKeyState]), name="security_key_state_known"
            ),
            models.CheckConstraint(
                condition=models.Q(
                    *(Q(purpose=purpose.value, algorithm=algorithm.value) for purpose, algorithm in ALGORITHMS.items()),
                    _connector=Q.OR,
                ),
                name="security_key_algorithm_of_purpose",
            ),
            models.CheckConstraint(
                condition=Q(algorithm=KeyAlgorithm.ED25519.value) & Exact(Length("public_key"), 32)
                | Q(algorithm=KeyAlgorithm.AES_256_GCM.value) & Exact(Length("public_key"), 0),
                name="security_key_public_half",
            ),
            models.CheckConstraint(
                condition=(Q(purpose=KeyPurpose.AT_REST.value) | Q(state__in=["pending", "active"]))
                & Exact(Length("wrapped"), WRAPPED_BYTES)
                | ~Q(purpose=KeyPurpose.AT_REST.value)
                & Q(state__in=["retiring", "retired"])
                & Exact(Length("wrapped"), WRAPPED_EMPTY_BYTES),
                name="security_key_signs_no_more_without_secret",
            ),
            models.CheckConstraint(
                condition=Q(state="pending", activated_at=None, replaced_at=None, retired_at=None)
                | Q(state="active", activated_at__isnull=False, replaced_at=None, retired_at=None)
                | Q(state="retiring", activated_at__isnull=False, replaced_at__isnull=False, retired_at=None)
                | Q(state="retired", activated_at__isnull=False, replaced_at__isnull=False, retired_at__isnull=False),
                name="security_key_times_of_state",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.purpose} key {self.id}"

    def get_label(self) -> KeyLabel:
        """What its wrapping is bound to."""
        return KeyLabel(
            id=self.id,
            purpose=KeyPurpose(self.purpose),
            algorithm=KeyAlgorithm(self.algorithm),
            public_key=bytes(self.public_key),
        )

    def get_days_in_use(self, *, now: datetime) -> int:
        """Since when it does new work, in days; 0 for one that never did."""
        return 0 if self.activated_at is None else (now - self.activated_at).days

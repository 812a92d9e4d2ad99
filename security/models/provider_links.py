"""Which subject of an OpenID Connect provider an account is."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone
from uuid_utils.compat import uuid7

from security.domain.openid import MAX_SUBJECT_LENGTH
from security.models.accounts import Account

MAX_ISSUER_LENGTH = 500


class ProviderLink(models.Model):
    """An account's subject at an issuer: one each way."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="provider_links")
    issuer = models.CharField(max_length=MAX_ISSUER_LENGTH)
    subject = models.CharField(max_length=MAX_SUBJECT_LENGTH)
    last_used_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["issuer", "subject"], name="security_providerlink_subject"),
            models.UniqueConstraint(fields=["account", "issuer"], name="security_providerlink_account"),
            models.CheckConstraint(
                condition=~Q(subject="") & ~Q(issuer=""), name="security_providerlink_names_somebody"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.account} as {self.subject} of {self.issuer}"

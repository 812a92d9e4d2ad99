"""Rules of addresses: from where everybody, one account or one key may come."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.utils import timezone

from security.domain import addresses
from security.models.accounts import Account
from security.models.credentials import ApiKey
from security.models.validators import validate_network


class AddressRule(models.Model):
    """Addresses of a network may come, or may not; what it means together with others is ``domain.addresses``'."""

    class Effect(models.TextChoices):
        ALLOW = addresses.RuleEffect.ALLOW.value, "allow"
        DENY = addresses.RuleEffect.DENY.value, "deny"

    effect = models.CharField(max_length=10, choices=Effect, default=Effect.DENY)
    network = models.CharField(
        max_length=addresses.MAX_NETWORK_LENGTH,
        validators=[validate_network],
        help_text="An address or a network: 192.0.2.7, 10.0.0.0/8, 2001:db8::/32.",
    )
    account = models.ForeignKey(
        Account,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="address_rules",
        help_text="Only for this account; without account and key it is for everyone.",
    )
    api_key = models.ForeignKey(
        ApiKey,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="address_rules",
        verbose_name="API key",
        help_text="Only for this key, and the tokens that were obtained with it.",
    )
    note = models.CharField(max_length=200, blank=True, help_text="Why it is there.")
    is_enabled = models.BooleanField("enabled", default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["effect", "network"]
        constraints = [
            models.CheckConstraint(
                condition=Q(effect__in=[effect.value for effect in addresses.RuleEffect]),
                name="security_addressrule_effect_known",
            ),
            models.CheckConstraint(
                condition=Q(account__isnull=True) | Q(api_key__isnull=True),
                name="security_addressrule_one_scope",
                violation_error_message="A rule is for an account or for a key, not for both.",
            ),
            models.UniqueConstraint(
                fields=["effect", "network"],
                condition=Q(account__isnull=True, api_key__isnull=True),
                name="security_addressrule_unique",
            ),
            models.UniqueConstraint(
                fields=["effect", "network", "account"],
                condition=Q(account__isnull=False),
                name="security_addressrule_unique_account",
            ),
            models.UniqueConstraint(
                fields=["effect", "network", "api_key"],
                condition=Q(api_key__isnull=False),
                name="security_addressrule_unique_key",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.effect} {self.network} for {self.scope}"

    @property
    def scope(self) -> str:
        """Whom it is for, in words."""
        if self.account_id is not None:
            return f"the account {self.account}"
        return f"the key {self.api_key}" if self.api_key_id is not None else "everyone"

    def clean(self) -> None:
        super().clean()
        # One network has one text, so that the same rule is not there twice.
        try:
            self.network = str(addresses.parse_network(self.network))
        except addresses.NetworkInvalid as error:
            raise ValidationError({"network": str(error)}, code="network_invalid") from error

    def as_rule(self) -> addresses.AddressRule:
        """The rule as it decides.

        Raises:
            NetworkInvalid: what is stored is no network.
        """
        return addresses.AddressRule(
            id=self.pk or 0, effect=addresses.RuleEffect(self.effect), network=addresses.parse_network(self.network)
        )

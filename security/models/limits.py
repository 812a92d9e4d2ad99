"""Limits that operators set, and what of a quota was used."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone
from uuid_utils.compat import uuid7

from security.domain import policy
from security.domain.limits import EVERYTHING, Counted, LimitRule, Period, Scope
from security.models.accounts import Account, Role
from security.models.credentials import ApiKey
from security.models.validators import validate_action_pattern

MAX_AMOUNT = 1_000_000_000


class Limit(models.Model):
    """So many commands, or runs of tools, a period; counted for each account or key that it is about by itself."""

    class Scope(models.TextChoices):
        EACH_ACCOUNT = Scope.EACH_ACCOUNT.value, "each account"
        ACCOUNT = Scope.ACCOUNT.value, "one account"
        API_KEY = Scope.API_KEY.value, "one API key"
        ROLE = Scope.ROLE.value, "each account of a role"

    class Counted(models.TextChoices):
        COMMANDS = Counted.COMMANDS.value, "commands"
        RUNS = Counted.RUNS.value, "accepted runs of tools"

    class Period(models.TextChoices):
        SECOND = Period.SECOND.value, "second"
        MINUTE = Period.MINUTE.value, "minute"
        HOUR = Period.HOUR.value, "hour"
        DAY = Period.DAY.value, "day (UTC)"
        MONTH = Period.MONTH.value, "calendar month (UTC)"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=100, unique=True, help_text="Told to whoever reaches the limit.")
    is_enabled = models.BooleanField("enabled", default=True)
    scope = models.CharField("whose", max_length=20, choices=Scope, default=Scope.EACH_ACCOUNT)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, null=True, blank=True, related_name="limits")
    api_key = models.ForeignKey(
        ApiKey, on_delete=models.CASCADE, null=True, blank=True, related_name="limits", verbose_name="API key"
    )
    role = models.ForeignKey(Role, on_delete=models.CASCADE, null=True, blank=True, related_name="limits")
    counted = models.CharField("what", max_length=20, choices=Counted, default=Counted.COMMANDS)
    pattern = models.CharField(
        max_length=policy.MAX_PATTERN_LENGTH,
        default=EVERYTHING,
        validators=[validate_action_pattern],
        help_text="Of the command's name (tools.execute, contexts.*), or of the tool's (files.*); * for all.",
    )
    amount = models.PositiveBigIntegerField(validators=[MinValueValidator(1), MaxValueValidator(MAX_AMOUNT)])
    period = models.CharField("a", max_length=10, choices=Period, default=Period.MINUTE)
    burst = models.PositiveBigIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_AMOUNT)],
        help_text="How many may come at once; empty: as many as a period has. Quotas (day, month) have none.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(scope="each_account", account=None, api_key=None, role=None)
                | Q(scope="account", account__isnull=False, api_key=None, role=None)
                | Q(scope="api_key", account=None, api_key__isnull=False, role=None)
                | Q(scope="role", account=None, api_key=None, role__isnull=False),
                name="security_limit_one_subject",
                violation_error_message="Name the one account, key or role that the limit is about, and no other.",
            ),
            models.CheckConstraint(condition=Q(counted__in=["commands", "runs"]), name="security_limit_counted_known"),
            models.CheckConstraint(
                condition=Q(period__in=["second", "minute", "hour"]) | Q(period__in=["day", "month"], burst=None),
                name="security_limit_period",
                violation_error_message="A quota of a day or month has no burst.",
            ),
            models.CheckConstraint(
                condition=Q(amount__gte=1, amount__lte=MAX_AMOUNT)
                & (Q(burst=None) | Q(burst__gte=1, burst__lte=MAX_AMOUNT)),
                name="security_limit_amounts",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name}: {self.amount} {self.get_counted_display()} a {self.period}"

    def clean(self) -> None:
        super().clean()
        if self.name.strip() != self.name or not self.name.isprintable():
            raise ValidationError({"name": "Use printable characters, without spaces around them."})

    def to_rule(self) -> LimitRule:
        """As what counts knows it.

        Raises:
            PatternInvalid: the stored pattern is none.
        """
        targets = {
            self.Scope.ACCOUNT: str(self.account_id),
            self.Scope.API_KEY: str(self.api_key_id),
            self.Scope.ROLE: self.role.name if self.role else "",
        }
        return LimitRule(
            id=self.id,
            name=self.name,
            scope=Scope(self.scope),
            target=targets.get(self.Scope(self.scope), ""),
            counted=Counted(self.counted),
            pattern=self.pattern,
            amount=self.amount,
            period=Period(self.period),
            burst=self.burst or self.amount,
        )


class LimitUsage(models.Model):
    """How much of a quota was handed out to processes in one of its windows."""

    limit = models.ForeignKey(Limit, on_delete=models.CASCADE, related_name="usage")
    subject = models.CharField(max_length=36, help_text="The account's or the key's id.")
    window_start = models.DateField(help_text="The day, or the month's first; UTC.")
    used = models.PositiveBigIntegerField(default=0)

    class Meta:
        ordering = ["-window_start"]
        constraints = [
            models.UniqueConstraint(fields=["limit", "subject", "window_start"], name="security_limit_usage_window"),
            models.CheckConstraint(condition=Q(used__gte=0), name="security_limit_usage_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.limit_id} {self.subject} {self.window_start}: {self.used}"

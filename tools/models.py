"""Tools, their immutable versions, and runs with their timeline; the worker leases that runs stand under.

Writes go through ``services``, reads through ``selectors``.
"""

from __future__ import annotations

from typing import ClassVar, Final

from django.conf import settings
from django.db import models
from django.db.models import Q
from uuid_utils.compat import uuid7

from protocol.domain.messages import Priority, SecurityLevel
from tools.domain.specification import MAX_ENTRY_POINT_LENGTH, MAX_NAME_LENGTH, MAX_VERSION_LENGTH
from tools.domain.states import TERMINAL_STATES, ExecutionState

LEVELS: Final = ("", *(level.value for level in SecurityLevel))
"""What a demanded security level may be; empty: none is."""


class Tool(models.Model):
    """What agents call by name; what it does is its versions'."""

    class State(models.TextChoices):
        ENABLED = "enabled", "enabled"
        DISABLED = "disabled", "disabled"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=MAX_NAME_LENGTH, unique=True)
    state = models.CharField(max_length=10, choices=State, default=State.ENABLED)
    disabled_reason = models.CharField(max_length=500, blank=True)
    current_version = models.ForeignKey(
        "ToolVersion",
        on_delete=models.PROTECT,
        null=True,
        related_name="+",
        help_text="What runs when a caller names no version; empty: nothing can run.",
    )
    labels = models.JSONField(default=list, blank=True, help_text="An operator's, for grants: tool:*@label=production.")
    minimum_level = models.CharField(
        max_length=10,
        blank=True,
        help_text="The security level that an operator demands, above what its versions do; empty: nothing more.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["name"]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(state__in=["enabled", "disabled"]), name="tool_state_known"),
            models.CheckConstraint(condition=Q(minimum_level__in=LEVELS), name="tool_level_known"),
        ]

    def __str__(self) -> str:
        return self.name


class ToolVersion(models.Model):
    """One definition of a tool. Its definition never changes; only its state does."""

    class State(models.TextChoices):
        AVAILABLE = "available", "available"
        UNAVAILABLE = "unavailable", "unavailable"
        QUARANTINED = "quarantined", "quarantined"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tool = models.ForeignKey(Tool, on_delete=models.CASCADE, related_name="versions")
    version = models.CharField(max_length=MAX_VERSION_LENGTH)
    description = models.TextField()
    input_schema = models.JSONField()
    output_schema = models.JSONField()
    capabilities = models.JSONField(default=list)
    is_idempotent = models.BooleanField(default=False)
    timeout_seconds = models.FloatField(null=True, help_text="Empty: the server's default.")
    minimum_level = models.CharField(max_length=10, blank=True, help_text="The level that its author demands.")
    adapter = models.CharField(max_length=50)
    entry_point = models.CharField(max_length=MAX_ENTRY_POINT_LENGTH)
    needs_port = models.BooleanField(default=False, help_text="Each run is given a port of its worker's machine.")
    definition_hash = models.CharField(max_length=64, help_text="SHA-256 of the definition's RFC 8785 form.")
    state = models.CharField(max_length=12, choices=State, default=State.AVAILABLE)
    state_reason = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["tool__name", "-created_at"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tool", "version"], name="tool_version_unique"),
            models.CheckConstraint(
                condition=Q(state__in=["available", "unavailable", "quarantined"]), name="tool_version_state_known"
            ),
            models.CheckConstraint(condition=Q(minimum_level__in=LEVELS), name="tool_version_level_known"),
        ]

    def __str__(self) -> str:
        return f"{self.tool.name}@{self.version}"


class Execution(models.Model):
    """One run of one version of a tool, from its acceptance to its end; the row is the truth about it."""

    class Mode(models.TextChoices):
        WAIT = "wait", "wait"
        QUEUE = "queue", "queue"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # Indexed in Meta, together with what lists are ordered and filtered by; likewise ``requested_by`` and ``retry_of``.
    tool = models.ForeignKey(Tool, on_delete=models.PROTECT, related_name="executions", db_index=False)
    version = models.ForeignKey(ToolVersion, on_delete=models.PROTECT, related_name="executions")
    definition_hash = models.CharField(max_length=64, help_text="Of the version, when the run was accepted.")
    state = models.CharField(max_length=20, default=ExecutionState.QUEUED.value)
    mode = models.CharField(max_length=10, choices=Mode, default=Mode.WAIT)
    priority = models.CharField(max_length=10, default=Priority.NORMAL.value)
    attempt = models.PositiveIntegerField(default=0)
    # JSON as text, as it came and goes on the wire: neither decoded to be shown nor changed by a database's own JSON
    # type.
    input_json = models.TextField()
    input_hash = models.CharField(max_length=64, help_text="SHA-256 of the input's RFC 8785 form.")
    output_json = models.TextField(null=True)  # noqa: DJ001  # JSON's own null is an output
    error_json = models.TextField(blank=True, help_text="The error as its caller was told it.")
    event_count = models.PositiveIntegerField(default=0, help_text="The position of the last event of its timeline.")
    progress_fraction = models.FloatField(null=True)
    progress_message = models.CharField(max_length=500, blank=True)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="executions", db_index=False
    )
    session_id = models.UUIDField(null=True, help_text="The session that asked for it.")
    message_id = models.CharField(max_length=64, blank=True, help_text="The command that asked for it.")
    idempotency_key = models.CharField(max_length=255, blank=True, help_text="The caller's; emptied after 24 hours.")
    arguments_hash = models.CharField(max_length=64, help_text="What the same call again must have the same of.")
    retry_of = models.ForeignKey(
        "self", on_delete=models.SET_NULL, null=True, blank=True, related_name="retries", db_index=False
    )
    trace_id = models.CharField(max_length=32)
    timeout_seconds = models.FloatField(help_text="How long one attempt may run.")
    deadline = models.DateTimeField(null=True, help_text="When a waiting caller no longer does.")
    worker = models.CharField(max_length=200, blank=True, help_text="The lease that the attempt stands under.")
    not_before = models.DateTimeField(null=True, help_text="When a lost run may be tried again.")
    cancel_mode = models.CharField(max_length=10, blank=True)
    cancel_requested_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    sent_at = models.DateTimeField(null=True, help_text="When the reconciler last handed it to the broker.")
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar = ["-created_at"]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(state__in=[state.value for state in ExecutionState]), name="execution_state_known"
            ),
            models.CheckConstraint(
                condition=Q(state__in=sorted(TERMINAL_STATES), finished_at__isnull=False)
                | (~Q(state__in=sorted(TERMINAL_STATES)) & Q(finished_at=None)),
                name="execution_finished_iff_terminal",
            ),
            # A message id names one command of its session; its answer could not be told from another's.
            models.UniqueConstraint(
                fields=["session_id", "message_id"], condition=Q(session_id__isnull=False), name="execution_message"
            ),
            models.UniqueConstraint(
                fields=["requested_by", "idempotency_key"], condition=~Q(idempotency_key=""), name="execution_key"
            ),
        ]
        indexes: ClassVar = [
            # In the order of the lists to the last, so that a database without statistics sorts nothing, and with what
            # lists are filtered by, so that a filter that matches little reads the index and not the rows.
            models.Index(fields=["-created_at", "-id", "state", "priority", "mode"], name="execution_created"),
            # The tool's has the account and the account's the tool: whichever is chosen for both finds a rare pair.
            models.Index(
                fields=["tool", "-created_at", "-id", "state", "requested_by", "priority", "mode"],
                name="execution_tool",
            ),
            models.Index(
                fields=["requested_by", "-created_at", "-id", "state", "tool", "priority", "mode"],
                name="execution_requester",
            ),
            models.Index(fields=["message_id"], name="execution_message_id"),
            models.Index(fields=["trace_id"], name="execution_trace_id"),
            # Few runs repeat another: one that does not has no entry.
            models.Index(fields=["retry_of"], condition=Q(retry_of__isnull=False), name="execution_retry_of"),
            models.Index(fields=["finished_at"], name="execution_finished"),
            models.Index(fields=["worker"], condition=Q(state="running"), name="execution_worker"),
            models.Index(fields=["state", "created_at"], condition=Q(finished_at=None), name="execution_unfinished"),
        ]

    def __str__(self) -> str:
        return f"{self.id}"


class ExecutionWaiter(models.Model):
    """A command that asked for a run that another command had asked for before, and waits for its answer too."""

    id = models.BigAutoField(primary_key=True)
    execution = models.ForeignKey(Execution, on_delete=models.CASCADE, related_name="waiters")
    session_id = models.UUIDField()
    message_id = models.CharField(max_length=64)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["session_id", "message_id"], name="execution_waiter_message"),
        ]

    def __str__(self) -> str:
        return f"{self.session_id}:{self.message_id}"


class ExecutionEvent(models.Model):
    """One entry of a run's timeline: a change of its state, or progress that its tool told."""

    class Kind(models.TextChoices):
        STATE = "state", "state"
        PROGRESS = "progress", "progress"

    id = models.BigAutoField(primary_key=True)
    execution = models.ForeignKey(Execution, on_delete=models.CASCADE, related_name="events")
    position = models.PositiveIntegerField()
    kind = models.CharField(max_length=10, choices=Kind)
    data_json = models.TextField()
    at = models.DateTimeField()

    class Meta:
        ordering: ClassVar = ["position"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["execution", "position"], name="execution_event_position"),
        ]

    def __str__(self) -> str:
        return f"{self.execution_id}:{self.position}"


class WorkerLease(models.Model):
    """A worker that lives, as it says itself every few seconds."""

    name = models.CharField(max_length=200, primary_key=True)
    host = models.CharField(max_length=200)
    pid = models.PositiveIntegerField()
    started_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name

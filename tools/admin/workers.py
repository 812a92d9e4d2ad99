"""The workers that say of themselves that they live."""

from __future__ import annotations

from django.contrib import admin
from django.utils import timezone
from unfold.decorators import display

from protocol.admin import ReadOnlyAdmin
from tools.admin.labels import LEASE_COLOURS
from tools.models import WorkerLease


@admin.register(WorkerLease)
class WorkerLeaseAdmin(ReadOnlyAdmin):
    list_display = ["name", "state", "host", "pid", "started_at", "expires_at"]
    search_fields = ["name", "host"]
    search_help_text = "Name or host"
    fields = ["name", "state", "host", "pid", "started_at", "expires_at"]

    @display(description="state", label=LEASE_COLOURS)
    def state(self, obj: WorkerLease) -> str:
        return "alive" if obj.expires_at > timezone.now() else "lapsed"

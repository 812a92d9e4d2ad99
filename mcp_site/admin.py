"""The console's pages of what other libraries keep in the database: the scheduler's tasks, to be looked at.

They are not edited: a task made by hand would get past the services, and without its housekeeping the server keeps
none of its promises about runs.
"""

from __future__ import annotations

import importlib
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)
from unfold.decorators import display

from protocol.admin import ReadOnlyAdmin

admin.site.index_title = "Overview"

# Registers its own pages, which do not fit the console; only what is registered can be taken back.
importlib.import_module("django_celery_beat.admin")
for model in (ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule):
    admin.site.unregister(model)


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(ReadOnlyAdmin):
    list_display = ["name", "task", "runs", "enabled", "last_run_at", "total_run_count"]
    search_fields = ["name", "task"]
    search_help_text = "Name or task"
    fields = ["name", "task", "runs", "enabled", "last_run_at", "total_run_count", "args", "kwargs", "description"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[PeriodicTask]:
        queryset: QuerySet[PeriodicTask] = super().get_queryset(request)
        return queryset.select_related("interval", "crontab", "solar", "clocked")

    def get_form(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        # The library's texts tell how to fill the fields in.
        return super().get_form(request, *args, **{**kwargs, "help_texts": dict.fromkeys(self.fields, "")})

    @display(description="runs")
    def runs(self, obj: PeriodicTask) -> str:
        return str(obj.scheduler or "never")

"""`manage.py runserver`: daphne's development server, over the broker of a running `serve`."""

from __future__ import annotations

from typing import Any

from daphne.management.commands.runserver import Command as DaphneCommand
from django.conf import settings

from mcp_site.serving.preflight import check_broker_runs


class Command(DaphneCommand):  # type: ignore[misc]  # daphne has no types
    """daphne's command, refusing in one line where sockets and tools could not work."""

    def handle(self, *args: Any, **options: Any) -> None:
        check_broker_runs(settings.BROKER_SOCKET)
        super().handle(*args, **options)

"""Tools and their runs as a Django app."""

from __future__ import annotations

from django.apps import AppConfig


class ToolsConfig(AppConfig):
    name = "tools"
    verbose_name = "Tools and runs"

    def ready(self) -> None:
        import tools.checks  # noqa: F401  # registers them

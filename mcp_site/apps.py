"""Django's view of the composition."""

from __future__ import annotations

import importlib

from django.apps import AppConfig


class MCPSiteConfig(AppConfig):
    """Loads the Celery app, so that ``celery.current_app`` is ours in every process."""

    name = "mcp_site"
    verbose_name = "Machine Context Protocol"

    def ready(self) -> None:
        importlib.import_module("mcp_site.celery")

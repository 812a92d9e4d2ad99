"""The message kernel as a Django app."""

from __future__ import annotations

from django.apps import AppConfig


class ProtocolConfig(AppConfig):
    name = "protocol"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Sessions and messages"

    def ready(self) -> None:
        from protocol import registry

        registry.autodiscover()

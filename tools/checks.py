"""System checks of this app: what an operator should see at every start."""

from __future__ import annotations

from typing import Any

from django.core import checks

from tools.adapters.python import autodiscover, get_pack_failures


@checks.register("tools")
def check_packs(**_: Any) -> list[checks.CheckMessage]:
    """Every app's tools can be loaded."""
    autodiscover()
    return [
        checks.Warning(f"The tools of app {failure.app_label} are not available: {failure.error}", id="tools.W001")
        for failure in get_pack_failures()
    ]

"""How the console looks: its name, colours, and the sidebar. What its pages do is in each app's ``admin``.

Addresses and permissions are functions: they are asked for at each request, when URLs and apps are there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse_lazy

from mcp_site import __version__

FORMAT_MODULE_PATH = ["mcp_site.formats"]


def _link_static(path: str) -> Callable[[HttpRequest], str]:
    return lambda _request: static(path)


def _needs(permission: str) -> Callable[[HttpRequest], bool]:
    return lambda request: request.user.has_perm(permission)


def _link_list(title: str, *, icon: str, model: str) -> dict[str, Any]:
    """A line of the sidebar that leads to a model's list, for whoever may see it; ``model`` is ``app.model``."""
    app, _, name = model.partition(".")
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{app}_{name}_changelist"),
        "permission": _needs(f"{app}.view_{name}"),
    }


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Machine Context Protocol",
    "SITE_HEADER": "Machine Context Protocol",
    "SITE_SUBHEADER": f"{__version__} · times in UTC",
    "SITE_URL": None,
    "SITE_ICON": _link_static("mcp/icon.svg"),
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "sizes": "any", "href": _link_static("mcp/icon.svg")},
    ],
    "STYLES": [_link_static("mcp/console.css")],
    "SCRIPTS": [_link_static("mcp/console.js")],
    "SHOW_VIEW_ON_SITE": False,
    "ACCOUNT": {
        "navigation": [
            {"title": "Change password", "link": reverse_lazy("admin:password_change")},
            {"title": "Second factor", "link": reverse_lazy("admin:second_factors")},
        ],
    },
    "DASHBOARD_CALLBACK": "mcp_site.console.overview.add_overview",
    "COLORS": {
        # Blue at these steps has the contrast for text that WCAG's AA asks for, on white and on the dark ground.
        "primary": {
            "50": "oklch(97% .014 254.604)",
            "100": "oklch(93.2% .032 255.585)",
            "200": "oklch(88.2% .059 254.128)",
            "300": "oklch(80.9% .105 251.813)",
            "400": "oklch(70.7% .165 254.624)",
            "500": "oklch(65.5% .19 257)",
            "600": "oklch(54.6% .245 262.881)",
            "700": "oklch(48.8% .243 264.376)",
            "800": "oklch(42.4% .199 265.638)",
            "900": "oklch(37.9% .146 265.522)",
            "950": "oklch(28.2% .091 267.935)",
        },
    },
    "SIDEBAR": {
        "navigation": [
            {"items": [{"title": "Overview", "icon": "space_dashboard", "link": reverse_lazy("admin:index")}]},
            {
                "title": "Runs and tools",
                "items": [
                    _link_list("Executions", icon="play_circle", model="tools.execution"),
                    _link_list("Tools", icon="build", model="tools.tool"),
                ],
            },
            {
                "title": "Access",
                "items": [
                    _link_list("Accounts", icon="person", model="security.account"),
                    _link_list("Roles", icon="shield_person", model="security.role"),
                    {
                        "title": "Who may what",
                        "icon": "rule",
                        "link": reverse_lazy("admin:security_role_explain"),
                        "permission": lambda request: request.user.has_perms(
                            ["security.view_role", "security.view_account"]
                        ),
                    },
                    _link_list("API keys", icon="key", model="security.apikey"),
                    _link_list("Tokens", icon="token", model="security.issuedtoken"),
                    _link_list("Address rules", icon="lan", model="security.addressrule"),
                    _link_list("Limits", icon="speed", model="security.limit"),
                    _link_list("Command keys", icon="signature", model="security.commandkey"),
                    _link_list("Console groups", icon="group", model="auth.group"),
                    _link_list("Server keys", icon="vpn_key", model="security.encryptionkey"),
                    _link_list("Audit record", icon="receipt_long", model="security.auditevent"),
                ],
            },
            {
                "title": "Sessions",
                "items": [
                    _link_list("Sessions", icon="cable", model="protocol.session"),
                    _link_list("Outbox", icon="outbox", model="protocol.outboxmessage"),
                ],
            },
            {
                "title": "Ports",
                "items": [
                    _link_list("Leased ports", icon="settings_ethernet", model="security.portlease"),
                    _link_list("Ports in quarantine", icon="block", model="security.portquarantine"),
                ],
            },
            {
                "title": "Workers and schedule",
                "items": [
                    _link_list("Workers", icon="memory", model="tools.workerlease"),
                    _link_list("Periodic tasks", icon="schedule", model="django_celery_beat.periodictask"),
                ],
            },
        ],
    },
}

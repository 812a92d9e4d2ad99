"""The project's settings. What the environment may say is in `environment`, what Django makes of it in `base`."""

from mcp_site.settings.base import *  # noqa: F403  # Django reads settings as names of this module

#!/usr/bin/env python3
"""The project's command line."""

import os
import sys

from mcp_site.errors import StartRefused
from protocol.errors import Misconfigured


def main() -> int:
    """Run a management command. A start that is refused ends with one line and its exit code."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mcp_site.settings")
    try:
        from django.core.management import execute_from_command_line  # noqa: PLC0415  # its absence is explained
    except ModuleNotFoundError:
        sys.stderr.write("error: Django is not installed here; `make run` sets the environment up in .venv\n")
        return 1
    try:
        execute_from_command_line(sys.argv)
    except StartRefused as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except Misconfigured as error:
        sys.stderr.write(f"error: {error.message}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

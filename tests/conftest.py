"""What every test may use. Processes that a fixture starts are in ``tests/services.py``."""

from __future__ import annotations

import shutil

import pytest
from django.conf import settings


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove this process's data folder."""
    shutil.rmtree(settings.MCP.data_dir, ignore_errors=True)

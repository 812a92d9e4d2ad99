"""What the tests of tools share: a clean registry after each, and contexts that need no Django."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tools.mcp_tools  # noqa: F401  # declared before the first snapshot: a module is imported once
from tools import authoring
from tools.authoring import Progress, ToolContext


@pytest.fixture(autouse=True)
def _keep_declarations() -> Iterator[None]:
    """Take away what a test declared, or other tests' registrations would hold it."""
    before = dict(authoring._declarations)
    yield
    authoring._declarations.clear()
    authoring._declarations.update(before)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    root.mkdir()
    return root


@pytest.fixture
def reports() -> list[Progress]:
    """What the contexts of ``make_context`` reported."""
    return []


@pytest.fixture
def make_context(tmp_path: Path, reports: list[Progress]) -> Callable[..., ToolContext]:
    def make(*, workspace: Path | None = None, **given: Any) -> ToolContext:
        return ToolContext(
            execution_id=uuid.uuid4(),
            attempt=1,
            deadline=None,
            scratch=tmp_path,
            workspace=workspace,
            report=reports.append,
            **given,
        )

    return make


@pytest.fixture
def context(make_context: Callable[..., ToolContext], workspace: Path) -> ToolContext:
    return make_context(workspace=workspace)

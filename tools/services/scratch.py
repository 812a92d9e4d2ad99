"""The runs' private folders: ``<data_dir>/scratch/<execution>.<attempt>.<random>``, each for one attempt."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from tools.models import Execution


def make_scratch(*, execution: Execution) -> Path:
    """A new, empty, private folder for the attempt."""
    root = get_root()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{execution.id}.{execution.attempt}.", dir=root))


def remove_scratch(*, execution: Execution) -> None:
    """Remove what an attempt that cannot do so itself has left on this machine."""
    for folder in get_root().glob(f"{execution.id}.{execution.attempt}.*"):
        shutil.rmtree(folder, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove one of them."""
    shutil.rmtree(folder, ignore_errors=True)


def iterate_scratch() -> Iterator[tuple[uuid.UUID, Path]]:
    """Every folder that is there, with its execution."""
    for folder in get_root().glob("*.*.*"):
        try:
            yield uuid.UUID(folder.name.partition(".")[0]), folder
        except ValueError:
            continue


def get_root() -> Path:
    """Where they all lie."""
    return Path(settings.MCP.data_dir) / "scratch"

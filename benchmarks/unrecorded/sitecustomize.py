"""The product without its audit record, for the comparison that ``benchmarks.recorded`` makes; nothing else uses it.

Python imports a module of this name by itself at its start, where this folder is on ``PYTHONPATH``. Then recording an
event and sealing do nothing in that process. No setting of the product does this, and none is to.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

REPLACED: dict[str, dict[str, Callable[..., Any]]] = {
    "security.services.audit": {"record_event": lambda **_: None},
    "security.services.sealing": {"seal_events": lambda: 0, "sign_chain": lambda **_: None},
}
"""Functions by their modules, replaced as soon as the module is there, before anything imports them from it."""


class ReplacingLoader(Loader):
    """A module's own loader, and then the replacements."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        for name, function in REPLACED[module.__name__].items():
            assert hasattr(module, name), name
            setattr(module, name, function)


class ReplacingFinder(MetaPathFinder):
    """Finds those modules, by all other finders."""

    def find_spec(self, fullname: str, _path: Any, _target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in REPLACED:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            spec.loader = ReplacingLoader(spec.loader)
        return spec


sys.meta_path.insert(0, ReplacingFinder())

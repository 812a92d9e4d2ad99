"""A tool that fails while it holds a secret."""

from __future__ import annotations

from tools.authoring import tool


@tool(name="leaky.use")
def use(secret: str) -> None:
    """Fail with a secret at hand."""
    raise RuntimeError("nobody expected it")

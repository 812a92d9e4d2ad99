"""Which web pages may open a WebSocket here: RFC 6455, section 10.2.

Browsers let any page connect anywhere and say in ``Origin`` which page it is; other clients send none. Our own origin
is the one that the request itself was sent to, under a name that is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection


def is_allowed_origin(
    origin: str | None,
    *,
    host: str,
    is_secure: bool,
    allowed_origins: Collection[str],
    is_own_host: Callable[[str], bool],
) -> bool:
    """Whether who shows this ``Origin`` is let in; ``None``: no browser's page.

    ``host`` is the request's ``Host`` header, port and all. ``is_own_host`` says whether that is a name of this server:
    without it a name of the attacker's that leads here would be its own origin (DNS rebinding). ``allowed_origins`` are
    as browsers write them, ``https://app.example``.
    """
    if origin is None:
        return True
    if origin in allowed_origins:
        return True
    scheme = "https" if is_secure else "http"
    return origin.lower() == f"{scheme}://{host.lower()}" and is_own_host(host)

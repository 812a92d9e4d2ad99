"""The listening socket: bound once by `serve`, inherited by every web process: a restart loses no connection."""

from __future__ import annotations

import errno
import socket
from typing import Final

from mcp_site.errors import StartRefused

BACKLOG: Final = 2048


def bind_listener(*, host: str, port: int) -> socket.socket:
    """A listening socket, inheritable.

    Raises:
        StartRefused: the address is taken or not this machine's.
    """
    host = "127.0.0.1" if host == "localhost" else host
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise StartRefused(_explain(error, host=host, port=port)) from error
    listener.setblocking(False)  # noqa: FBT003  # takes no keyword
    listener.set_inheritable(True)
    return listener


def _explain(error: OSError, *, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is taken; set MCP_PORT to another (0 takes any free one)"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"MCP_BIND: {host} is not an address of this machine"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"MCP_PORT: this user may not listen on port {port}"
    return f"MCP_BIND: cannot listen on {host} port {port}: {error.strerror}"

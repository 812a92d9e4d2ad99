"""What this app refuses, beyond the kernel's own errors of authentication and access (``protocol.errors``).

SecurityError
├── TokenRevoked
└── LockedOut
"""

from __future__ import annotations

from protocol.errors import SecurityError


class TokenRevoked(SecurityError):
    """The token was revoked or used before; authenticate again."""

    code = "security.token_revoked"
    http_status = 401


class LockedOut(SecurityError):
    """Too many wrong passwords; try again later."""

    code = "security.locked_out"
    http_status = 429
    retryable = True

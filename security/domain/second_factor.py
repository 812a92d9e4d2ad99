"""Codes of a second factor: those of an authenticator app (RFC 6238), and recovery codes.

What belongs here takes the time and the secrets as arguments. Where they are kept, and that each counts once, is
``services.second_factors``'s.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import secrets
import uuid
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.hotp import HOTP
from cryptography.hazmat.primitives.twofactor.totp import TOTP

SECRET_BYTES: Final = 20
"""RFC 4226, section 4, R6: as long as the HMAC's output."""
DIGITS: Final = 6
STEP_SECONDS: Final = 30
TOLERANCE_STEPS: Final = 1
"""How far a phone's clock may be off, and how long the way to here may take: one step either way (section 5.2)."""
MAX_CODE_LENGTH: Final = 64

RECOVERY_CODES: Final = 10
RECOVERY_ALPHABET: Final = "abcdefghjkmnpqrstvwxyz0123456789"
"""Without i, l, o and u, which are read as others, or make words."""
RECOVERY_LENGTH: Final = 16
"""Of 32 characters each: 80 bits, so that a stored digest cannot be guessed back."""
RECOVERY_GROUP: Final = 4

NO_SECRET: Final = bytes(SECRET_BYTES)
"""What is computed with where there is no secret, so that it takes as long."""


class Requirement(enum.StrEnum):
    """Who must have a second factor; whoever has one must show it in any case."""

    NONE = "none"
    STAFF = "staff"
    EVERYONE = "everyone"


def is_required(*, requirement: Requirement, is_staff: bool) -> bool:
    """Whether an account must have a second factor."""
    return requirement is Requirement.EVERYONE or (requirement is Requirement.STAFF and is_staff)


def make_secret() -> bytes:
    """A new secret for an authenticator app."""
    return secrets.token_bytes(SECRET_BYTES)


def make_uri(*, secret: bytes, account: str, issuer: str) -> str:
    """What an authenticator app reads from the picture: ``otpauth://totp/…``."""
    return TOTP(secret, DIGITS, SHA1(), STEP_SECONDS).get_provisioning_uri(account, issuer)  # noqa: S303  # RFC 6238's HMAC, which every app has


def encode_secret(secret: bytes) -> str:
    """The secret as it is typed into an app: base32, in groups of four."""
    text = base64.b32encode(secret).decode().rstrip("=")
    return " ".join(text[start : start + RECOVERY_GROUP] for start in range(0, len(text), RECOVERY_GROUP))


def get_step(*, now: datetime) -> int:
    """The number of the step of 30 seconds that ``now`` is in."""
    return int(now.timestamp()) // STEP_SECONDS


def make_code(*, secret: bytes, step: int) -> str:
    """The app's code in that step."""
    return HOTP(secret, DIGITS, SHA1()).generate(step).decode()  # noqa: S303  # as above


def find_step(*, secret: bytes, code: str, now: datetime, last_step: int) -> int | None:
    """The step whose code this is; ``None``: of none that may still be used.

    ``last_step`` is the last that was used: it and those before it do not count again. Every candidate is computed and
    compared, whichever fits.
    """
    given = normalize_code(code).encode("utf-8", errors="surrogatepass")
    current = get_step(now=now)
    found = None
    for step in range(current - TOLERANCE_STEPS, current + TOLERANCE_STEPS + 1):
        fits = hmac.compare_digest(make_code(secret=secret, step=step).encode(), given)
        if fits and step > last_step:
            found = step
    return found


def normalize_code(text: str) -> str:
    """The code as it was shown, without what people put between its parts; nothing that is no code gets longer."""
    return "".join(text.split()).replace("-", "").lower()


def make_recovery_code() -> str:
    """A new recovery code, in groups of four."""
    code = "".join(secrets.choice(RECOVERY_ALPHABET) for _ in range(RECOVERY_LENGTH))
    return "-".join(code[start : start + RECOVERY_GROUP] for start in range(0, RECOVERY_LENGTH, RECOVERY_GROUP))


def hash_recovery_code(*, account_id: uuid.UUID, code: str) -> str:
    """What is stored of a recovery code: it tells nothing, and belongs to one account."""
    text = normalize_code(code).encode("utf-8", errors="surrogatepass")
    return hashlib.sha256(account_id.bytes + text).hexdigest()

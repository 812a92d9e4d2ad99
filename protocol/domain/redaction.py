"""Taking secrets out of text that people will read: logs, reports of failures, errors.

The last line of defence. Nothing is written there with a secret in mind; but other libraries write too, and what an
exception or an address says is whatever somebody put in it. A secret is known by its form (keys and tokens of this
server, passwords in URLs, what is called a password), or because the process was started with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

HIDDEN: Final = "***"
MIN_SECRET_LENGTH: Final = 6
"""Shorter ones are found by their form only: everywhere they stand by chance too."""

_NAMES: Final = (
    "password|passwd|pwd|passphrase|secret|token|auth_token|access_token|refresh_token|resume_token|id_token|api_key|"
    "apikey|client_secret|secret_key|master_key|private_key|recovery_code|csrfmiddlewaretoken"
)
# None of them begins in the middle of a word, so that no text makes them begin again at each of its characters.
_FORMS: Final = (
    # API keys; what is stored of one, and shown in the console, stays.
    (re.compile(r"(?<![A-Za-z0-9_-])(mcp_[A-Za-z0-9_-]{8})[A-Za-z0-9_-]{20,}"), rf"\1{HIDDEN}"),
    # JSON Web Tokens, also in part.
    (re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,2}"), f"eyJ{HIDDEN}"),
    (re.compile(r"(://[^\s/:@]*:)[^\s/@]+@"), rf"\1{HIDDEN}@"),
    (
        re.compile(
            r"""(?ix) (\bauthorization\b ["']? \s{0,4} [:=,] \s{0,4} (?:b?["'])? (?:(?:bearer|basic|token|digest)\s)?)
            [^\s"',}\])]+"""
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?i)\b(bearer\s)[A-Za-z0-9._~+/=-]{16,}"), rf"\1{HIDDEN}"),
    (
        re.compile(
            rf"""(?ix) (?<![A-Za-z0-9]) ((?:{_NAMES})\b ["']? \s{{0,4}} [:=] \s{{0,4}})
            (?: b?"(?:[^"\\]|\\.)*" | b?'(?:[^'\\]|\\.)*' | [^\s"'<>,;&}}\])]+ )"""
        ),
        rf"\1{HIDDEN}",
    ),
)


class Redactor:
    """Knows the secrets of its process, and shows them to nobody."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= MIN_SECRET_LENGTH}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def hide_known(self, text: str) -> str:
        """The text without the process's own secrets."""
        return text if self._known is None else self._known.sub(HIDDEN, text)

    def redact(self, text: str) -> str:
        """The text without secrets; its lines stay its lines."""
        text = self.hide_known(text)
        for form, shown in _FORMS:
            text = form.sub(shown, text)
        return text


def redact(text: str) -> str:
    """The text without what has the form of a secret."""
    return _BY_FORM.redact(text)


_BY_FORM: Final = Redactor()

"""Secrets are taken out of text by their form, and those of the process wherever they stand; the rest stays."""

from __future__ import annotations

import secrets
import time

import pytest

from mcp_site.known_secrets import SECRET_VARIABLES, make_redactor
from mcp_site.settings.reading import list_variables
from protocol.domain.redaction import Redactor, redact

KEY = "mcp_" + "aB3-dE6_gH9" * 4  # of no entropy: tests are named by it
TOKEN = "eyJhbGciOiJFZERTQSIsImtpZCI6IjEifQ.eyJqdGkiOiIwMWExZmE3OCJ9.c2lnbmF0dXJl"
WORD = "correct horse-battery"
PART = "swordfish-42"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"key {KEY} is unknown", KEY),
        (f"Not Found: /api/v1/tools/{KEY}/", KEY),
        (f"token={TOKEN}", TOKEN),
        (f"Not Found: /x/{TOKEN}", TOKEN),
        (f"cut off: {TOKEN[:30]}", TOKEN[10:30]),
        (f"Authorization: Bearer {PART}", PART),
        (f"{{'authorization': b'Basic {PART}'}}", PART),
        (f'"Authorization","{PART}"', PART),
        (f"bearer {PART}{PART}", PART),
        (f"redis://:{PART}@cache.example:6379/0", PART),
        (f"postgresql://mcp:{PART}@db.example/mcp", PART),
        (f"host=db user=mcp password={PART} dbname=x", PART),
        (f"host=db password='{WORD}' dbname=x", WORD),
        (f'{{"username": "a", "password": "{WORD}", "b": 1}}', WORD),
        (f"{{'password': '{WORD}'}}", WORD),
        (f'{{"password":"a\\"{PART}"}}', PART),
        (f"/login/?next=/&password={PART}&x=1", PART),
        (f"auth_token: {PART}", PART),
        (f"db_password={PART}", PART),
    ],
)
def test_a_secret_is_found_by_its_form(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-20T16:31:00.123Z INFO security.services: API key 0198c5a1-7f3e-7c44-9d55-3f2f6a1c8e10 refused",
        "Password of 0198c5a1-7f3e-7c44-9d55-3f2f6a1c8e10 from 127.0.0.1 refused: wrong",
        'File "/srv/mcp/tests/mcp_tools.py", line 3, in mcp_tools_module_name',
        "http://127.0.0.1:9000/admin/ and ws://[::1]:9000/ws/",
        "Tokens 0198c5a1-7f3e-7c44-9d55-3f2f6a1c8e10 of account a revoked",
        "token_families=3",
        '{"code": "security.locked_out"}',
    ],
)
def test_the_rest_stays(text: str) -> None:
    assert redact(text) == text


def test_a_keys_prefix_stays_since_it_is_no_secret() -> None:
    assert redact(KEY) == f"{KEY[:12]}***"


def test_the_process_own_secrets_are_found_wherever_they_stand() -> None:
    first, second = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    redactor = make_redactor([None, "", f"{first},{second}", "redis://:p%40ssword-1@h/0", "redis://:broken1@[h/0", "a"])
    for secret in (first, second, "p%40ssword-1", "p@ssword-1", "broken1"):
        assert secret not in redactor.redact(f"x{secret}y")
    # One letter is no secret that could be told from text.
    assert redactor.redact("a b") == "a b"
    assert first not in repr(redactor)


def test_the_supervisor_knows_every_secret_variable() -> None:
    assert set(SECRET_VARIABLES) == {variable.name for variable in list_variables() if variable.is_secret}


@pytest.mark.parametrize(
    "piece", ["eyJ", "mcp_", "://", "://a:", "password=", 'password="', "bearer ", "a", "\\", "authorization "]
)
def test_no_text_makes_it_slow(piece: str) -> None:
    text = piece * (400_000 // len(piece))
    started = time.process_time()
    Redactor().redact(text)
    # Quadratic time would be minutes.
    assert time.process_time() - started < 5

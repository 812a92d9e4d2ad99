"""No object that carries a secret shows it: every structure of the code is made with texts that are recognised."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pytest
from django.apps import apps
from django.db import models

import contexts
import mcp_site
import protocol
import security
import tools

PACKAGES: Final = (contexts, mcp_site, protocol, security, tools)
SECRETIVE: Final = re.compile(
    r"pass|secret|token|(^|_)(key|code|codes|access|refresh|iv|seed|stamp|uri)$|private|plaintext|credential|cookie|(^|_)authorization$|"
    r"wrapped|cipher|(^|_)(payload|arguments|input|data|body|headers|frame|public_key)$"
)
PLAIN: Final = frozenset(
    {
        # Names, not keys.
        "key_id",
        "idempotency_key",
        "credential",
        "key_hash",
        "public_key",
        # Where something is, and what a provider says of itself.
        "redirect_uri",
        "token_endpoint",
        "jwks_uri",
        "token_endpoint_auth_methods_supported",
        # The wire's and problems' codes, which programs read.
        "ErrorPayload.code",
        "Problem.code",
        "Group.codes",
        "Denial.code",
        # Paths and other settings that stand in no credential.
        "data_dir",
        # What is on its way to or from a peer as JSON: inputs and outputs, which are shown where they are recorded.
        "StreamedEvent.data",
        "EventPayload.data",
        "OutgoingMessage.payload",
        "OutgoingContent.payload",
        "OutgoingSealed.payload",
        "RiddenEvent.data",
        # Of operations, for the document of the API.
        "Operation.access",
        "Operation.headers",
        "Reply.headers",
        "AuditAction.data",
        "Description.body",
        "Example.body",
        "HttpResponse.body",
        "Variable.is_secret",
        # Sealed by then.
        "Sealed.data",
    }
)
SENTINEL: Final = "planted"


def list_classes() -> Iterator[type]:
    seen = set()
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".migrations." in module.name or module.name.endswith(".runserver"):
                continue
            for _, found in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                if found.__module__ == module.name and found not in seen:
                    seen.add(found)
                    yield found


def list_fields(cls: type) -> list[str]:
    if issubclass(cls, msgspec.Struct):
        return list(cls.__struct_fields__)
    return [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []


def holds_text(hint: Any) -> bool:
    """Whether a value of the type may be, or hold, text or bytes."""
    # Not ``msgspec.Raw``, which shows nothing of itself.
    if hint in (str, bytes, Any, object):
        return True
    return any(holds_text(part) for part in typing.get_args(hint) if part is not types.NoneType)


def list_cases() -> list[tuple[type, tuple[str, ...]]]:
    cases = []
    for cls in list_classes():
        try:
            hints = typing.get_type_hints(cls)
        except (NameError, TypeError):
            # Something that only type checkers import: then every field counts.
            hints = {}
        secretive = tuple(
            name
            for name in list_fields(cls)
            if SECRETIVE.search(name)
            and not {name, f"{cls.__name__}.{name}"} & PLAIN
            and holds_text(hints.get(name, Any))
        )
        if secretive:
            cases.append((cls, secretive))
    return cases


def make(cls: type) -> Any:
    """One of it with recognisable texts, past its own checks."""
    values = {name: f"{SENTINEL}-{name}-" for name in list_fields(cls)}
    if issubclass(cls, msgspec.Struct):
        return cls(**values) if not hasattr(cls, "__post_init__") else None
    instance = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(instance, name, value)
    return instance


CASES: Final = list_cases()


def test_there_are_some() -> None:
    assert {"PasswordCredentials", "RingKey", "IssuedTokens", "Enrolment"} <= {cls.__name__ for cls, _ in CASES}


@pytest.mark.parametrize(("cls", "names"), CASES, ids=lambda value: value.__name__ if isinstance(value, type) else "")
def test_a_structure_does_not_show_its_secrets(cls: type, names: tuple[str, ...]) -> None:
    made = make(cls)
    if made is None:
        pytest.skip("it checks what it is made of; its own test shows it")
    for shown in (repr(made), str(made)):
        told = [name for name in names if f"{SENTINEL}-{name}-" in shown]
        assert told == [], "leave them out of repr, or name them in PLAIN if they can hold no secret"


@pytest.mark.parametrize(
    "model",
    [model for model in apps.get_models() if model.__module__.split(".")[0] in {p.__name__ for p in PACKAGES}],
    ids=lambda model: model.__name__,
)
def test_a_row_does_not_show_its_secrets(model: type[models.Model]) -> None:
    row = model()
    names = []
    for field in model._meta.concrete_fields:
        if isinstance(field, models.CharField | models.TextField | models.BinaryField) and SECRETIVE.search(field.name):
            row.__dict__[field.attname] = f"{SENTINEL}-{field.name}"
            names.append(field.name)
    public = {"public_key", "key_id", "idempotency_key", "code", "credential"}
    try:
        shown = repr(row)
    except (AttributeError, ValueError, TypeError, models.ObjectDoesNotExist):
        # What names itself by rows that are not there names no text of its own.
        return
    assert [name for name in names if f"{SENTINEL}-{name}" in shown and name not in public] == []

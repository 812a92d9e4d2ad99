"""What a tool is: its specification, the rules that it keeps, and its definition hash.

Pure data: where a specification comes from (a decorated function, say) and where it is kept are for others.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import rfc8785

from protocol.domain.messages import SecurityLevel
from tools.domain.schemas import JsonSchema, Violation, check_schema, get_violation_details
from tools.errors import RegistrationInvalid

MAX_NAME_LENGTH = 100
MAX_VERSION_LENGTH = 64
MAX_DESCRIPTION_LENGTH = 2_000
MAX_CAPABILITIES = 32
MAX_ENTRY_POINT_LENGTH = 255
MAX_TIMEOUT_SECONDS = 86_400.0

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_NUMBER = r"(0|[1-9][0-9]*)"
_IDENTIFIER = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?")

VersionOrder: TypeAlias = tuple[int, int, int, bool, tuple[tuple[int, int, str], ...]]


@dataclass(frozen=True, kw_only=True)
class ToolSpecification:
    """One version of one tool, as its author defines it. To have one is to have a valid one.

    Raises:
        RegistrationInvalid: with everything that is wrong in ``details``.
    """

    name: str
    version: str
    description: str
    input_schema: JsonSchema
    output_schema: JsonSchema
    capabilities: tuple[str, ...]
    """Sorted, each once."""
    is_idempotent: bool
    """Running it again with the same input does no harm; what may be retried by itself."""
    timeout_seconds: float | None
    """``None``: the server's setting."""
    minimum_level: SecurityLevel | None = None
    """Below which no connection may run it; ``None``: it demands none."""
    adapter: str
    """Which adapter runs it, as ``tools.adapters.get_adapter`` knows it."""
    entry_point: str
    """What that adapter finds the tool by; for ``python`` it is ``module:qualname``."""
    needs_port: bool = False
    """Each of its runs is given a port of its worker's machine."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "capabilities", tuple(sorted(set(self.capabilities))))
        violations = _find_violations(self)
        if violations:
            first = violations[0]
            raise RegistrationInvalid(
                f"The tool's definition is not valid: {first.path} {first.message}.",
                details=get_violation_details(violations),
            )

    @property
    def reference(self) -> str:
        """``name@version``: what is registered once and never again with another definition."""
        return make_reference(name=self.name, version=self.version)

    def definition(self) -> dict[str, Any]:
        """Everything that makes this version what it is, as JSON."""
        definition = {
            "name": self.name,
            "version": self.version,
            "description": self.description,
            "input_schema": self.input_schema,
            "output_schema": self.output_schema,
            "capabilities": list(self.capabilities),
            "is_idempotent": self.is_idempotent,
            "timeout_seconds": self.timeout_seconds,
            "adapter": self.adapter,
            "entry_point": self.entry_point,
        }
        # Said only where it is so: what was registered before it could be said has the same hash.
        if self.minimum_level is not None:
            definition["minimum_level"] = self.minimum_level.value
        return {**definition, "needs_port": True} if self.needs_port else definition

    @cached_property
    def definition_hash(self) -> str:
        """Hexadecimal SHA-256 of the definition's RFC 8785 form: the same wherever and whenever it is computed."""
        return hashlib.sha256(rfc8785.dumps(self.definition())).hexdigest()


def make_reference(*, name: str, version: str) -> str:
    """How one version of a tool is written: ``text.count_words@1.0.0``."""
    return f"{name}@{version}"


def is_tool_name(name: str) -> bool:
    """Whether ``name`` is dotted lower case, such as ``text.count_words``. Capabilities are named by the same rule."""
    return len(name) <= MAX_NAME_LENGTH and _NAME.fullmatch(name) is not None


def is_version(version: str) -> bool:
    """Whether ``version`` is ``MAJOR.MINOR.PATCH``, or that with a pre-release (Semantic Versioning; no build part)."""
    return len(version) <= MAX_VERSION_LENGTH and _VERSION.fullmatch(version) is not None


def order_version(version: str) -> VersionOrder:
    """A key that sorts versions by precedence (Semantic Versioning 2.0.0, section 11).

    Raises:
        ValueError: it is not a version.
    """
    match = _VERSION.fullmatch(version)
    if match is None:
        raise ValueError(f"{version!r} is not a version")
    major, minor, patch, pre_release = match.groups()
    identifiers = tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in (pre_release or "").split(".") if part
    )
    return int(major), int(minor), int(patch), pre_release is None, identifiers


def get_latest_version(versions: Iterable[str]) -> str:
    """The highest release; where there are only pre-releases, the highest of them.

    Raises:
        ValueError: there are none, or one is not a version.
    """
    return max(versions, key=lambda version: ("-" not in version, order_version(version)))


def _find_violations(specification: ToolSpecification) -> list[Violation]:
    violations = [
        *_check_identity(specification),
        *_check_capabilities(specification.capabilities),
        *_check_timeout(specification.timeout_seconds),
        *_check_input_schema(specification.input_schema),
        *_prefix("/output_schema", check_schema(schema=specification.output_schema)),
    ]
    if not violations:
        try:
            rfc8785.dumps(specification.definition())
        except (rfc8785.CanonicalizationError, UnicodeEncodeError):
            message = "holds a number beyond 2^53 or text that is not Unicode"
            violations.append(Violation(path="", message=message))
    return violations


def _check_identity(specification: ToolSpecification) -> Iterable[Violation]:
    if not is_tool_name(specification.name):
        yield Violation(
            path="/name",
            message=f"must be dotted lower case such as 'text.count_words', {MAX_NAME_LENGTH} characters at most",
        )
    if not is_version(specification.version):
        yield Violation(path="/version", message="must be MAJOR.MINOR.PATCH such as '1.0.0', or '1.0.0-beta.1'")
    if not 0 < len(specification.description.strip()) <= MAX_DESCRIPTION_LENGTH:
        yield Violation(path="/description", message=f"must have 1 to {MAX_DESCRIPTION_LENGTH} characters")
    if not 0 < len(specification.entry_point) <= MAX_ENTRY_POINT_LENGTH:
        yield Violation(path="/entry_point", message=f"must have 1 to {MAX_ENTRY_POINT_LENGTH} characters")
    if not specification.adapter:
        yield Violation(path="/adapter", message="must name an adapter")


def _check_capabilities(capabilities: tuple[str, ...]) -> Iterable[Violation]:
    if len(capabilities) > MAX_CAPABILITIES:
        yield Violation(path="/capabilities", message=f"may have {MAX_CAPABILITIES} at most")
    for position, capability in enumerate(capabilities):
        if not is_tool_name(capability):
            yield Violation(
                path=f"/capabilities/{position}", message="must be dotted lower case such as 'text.analysis'"
            )


def _check_timeout(timeout_seconds: float | None) -> Iterable[Violation]:
    if timeout_seconds is None:
        return
    if not (math.isfinite(timeout_seconds) and 0 < timeout_seconds <= MAX_TIMEOUT_SECONDS):
        yield Violation(path="/timeout_seconds", message=f"must be above 0 and at most {MAX_TIMEOUT_SECONDS:g}")


def _check_input_schema(schema: JsonSchema) -> Iterable[Violation]:
    yield from _prefix("/input_schema", check_schema(schema=schema))
    if schema.get("type") != "object":
        yield Violation(path="/input_schema/type", message="must be 'object': a tool takes named arguments")


def _prefix(prefix: str, violations: Iterable[Violation]) -> Iterable[Violation]:
    return (Violation(path=prefix + violation.path, message=violation.message) for violation in violations)

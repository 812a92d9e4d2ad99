"""From a Python function's signature to a tool's schemas, and between JSON and its typed arguments.

The type hints are the contract: they make the input and output schemas, and they convert what arrives. What is found
wrong is said in a way that its author can act on. Where the function comes from and who calls it are for others.
"""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import docstring_parser
import msgspec

from tools.domain.schemas import JsonSchema, Violation, bound_message, get_violation_details
from tools.errors import InvalidInput, InvalidOutput, RegistrationInvalid

_VARIABLE_KINDS = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
_MSGSPEC_LOCATION = re.compile(r" - at `(?P<path>[^`]*)`\Z")
_PATH_PART = re.compile(r"\.([^.\[]+)|\[(\d+)\]")

Function: TypeAlias = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a function takes and gives, as a tool."""

    arguments_type: type[msgspec.Struct]
    """One field a parameter, the context left out; unknown fields are refused."""
    context_parameter: str | None
    """The parameter that gets the run's context; ``None``: the function wants none."""
    is_async: bool
    input_schema: JsonSchema
    output_schema: JsonSchema
    summary: str
    """The docstring's first paragraph in one line; empty: there is none."""


def read_signature(*, function: Function, context_type: type) -> Signature:
    """The signature of ``function``; a parameter annotated ``context_type`` is not part of the input.

    Raises:
        RegistrationInvalid: the function cannot be a tool; the message says what to change.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise RegistrationInvalid("a tool returns its output; return a list, and stream by context.emit_output()")
    hints = _get_hints(function)
    documentation = docstring_parser.parse(inspect.getdoc(function) or "", style=docstring_parser.DocstringStyle.GOOGLE)
    parameters = inspect.signature(function).parameters.values()
    context_parameters = [parameter.name for parameter in parameters if hints.get(parameter.name) is context_type]
    if len(context_parameters) > 1:
        raise RegistrationInvalid(f"only one parameter may be a {context_type.__name__}")
    taken = [parameter for parameter in parameters if parameter.name not in context_parameters]
    arguments_type = msgspec.defstruct(
        f"{function.__name__}_arguments",
        [_make_field(parameter, hints) for parameter in taken],
        forbid_unknown_fields=True,
        kw_only=True,
    )
    return Signature(
        arguments_type=arguments_type,
        context_parameter=context_parameters[0] if context_parameters else None,
        is_async=inspect.iscoroutinefunction(function),
        input_schema=_make_input_schema(arguments_type, taken, documentation),
        output_schema=_make_output_schema(hints, documentation),
        summary=" ".join((documentation.description or "").partition("\n\n")[0].split()),
    )


def decode_arguments(*, signature: Signature, value: object) -> dict[str, Any]:
    """JSON (as Python's builtins) as the function's keyword arguments.

    Raises:
        InvalidInput: ``value`` is not of the signature's types.
    """
    try:
        arguments = _convert_arguments(signature, value)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidInput(details=get_violation_details([_to_violation(error)])) from error
    return {name: getattr(arguments, name) for name in signature.arguments_type.__struct_fields__}


def encode_output(*, value: object) -> Any:
    """What a function returned as JSON (Python's builtins).

    Raises:
        InvalidOutput: it has no JSON form; infinities and "not a number" have none either.
    """
    try:
        output = msgspec.to_builtins(value, str_keys=True)
        json.dumps(output, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidOutput(
            "The tool returned what has no JSON form.",
            details=get_violation_details([Violation(path="", message=bound_message(str(error)))]),
        ) from error
    return output


def _convert_arguments(signature: Signature, value: object) -> msgspec.Struct:
    try:
        return msgspec.convert(value, signature.arguments_type, str_keys=True)
    except msgspec.ValidationError:
        # The schema holds 3.0 for an integer, and so do some clients' encoders; the strict conversion does not.
        return msgspec.convert(value, signature.arguments_type, str_keys=True, strict=False)


def _get_hints(function: Function) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise RegistrationInvalid(
            f"its annotations cannot be read ({error}); name types that the module itself defines or imports"
        ) from error


def _make_field(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> tuple[str, Any] | tuple[str, Any, Any]:
    name = parameter.name
    if parameter.kind in _VARIABLE_KINDS:
        stars = _VARIABLE_KINDS[parameter.kind]
        raise RegistrationInvalid(f"{stars}{name} has no schema; name each parameter, or take one list or dict")
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        raise RegistrationInvalid(f"parameter {name!r} is positional only; remove the '/', arguments come by name")
    if name not in hints:
        raise RegistrationInvalid(f"parameter {name!r} has no type; annotate it, for example '{name}: str'")
    _make_schema(hints[name], what=f"parameter {name!r}")
    if parameter.default is inspect.Parameter.empty:
        return name, hints[name]
    _check_default(parameter, hints[name])
    return name, hints[name], parameter.default


def _check_default(parameter: inspect.Parameter, hint: Any) -> None:
    """msgspec trusts defaults; a wrong one would publish a schema that its own default breaks."""
    try:
        msgspec.convert(msgspec.to_builtins(parameter.default, str_keys=True), hint, str_keys=True)
        msgspec.defstruct("Probe", [(parameter.name, hint, parameter.default)])
    except (TypeError, ValueError) as error:
        raise RegistrationInvalid(
            f"the default of parameter {parameter.name!r} does not fit its type ({error}); "
            f"write '| None' to allow None, and use None or an empty list instead of a filled mutable one"
        ) from error


def _make_input_schema(
    arguments_type: type[msgspec.Struct],
    parameters: list[inspect.Parameter],
    documentation: docstring_parser.Docstring,
) -> JsonSchema:
    schema = _make_schema(arguments_type, what="the input")
    del schema["title"]
    properties = schema["properties"]
    for parameter in parameters:
        if "default" in properties[parameter.name]:
            # A set's order is another in every process; the definition hash must not be.
            properties[parameter.name]["default"] = msgspec.to_builtins(
                parameter.default, str_keys=True, order="deterministic"
            )
    for described in documentation.params:
        if described.arg_name in properties and described.description:
            properties[described.arg_name].setdefault("description", " ".join(described.description.split()))
    return schema


def _make_output_schema(hints: Mapping[str, Any], documentation: docstring_parser.Docstring) -> JsonSchema:
    if "return" not in hints:
        raise RegistrationInvalid("what it returns has no type; annotate it, for example '-> str' or '-> None'")
    schema = _make_schema(hints["return"], what="what it returns")
    if documentation.returns is not None and documentation.returns.description:
        schema.setdefault("description", " ".join(documentation.returns.description.split()))
    return schema


def _make_schema(hint: Any, *, what: str) -> JsonSchema:
    """The hint's schema; its root is written out where nothing else refers to it."""
    try:
        schema = msgspec.json.schema(hint)
    except TypeError as error:
        name = getattr(hint, "__qualname__", str(hint))
        raise RegistrationInvalid(
            f"{what} is of type {name}, which has no JSON form; use str, int, float, bool, list, dict, Literal, "
            f"an Enum, a dataclass, a TypedDict, a msgspec.Struct, or Any"
        ) from error
    definitions = schema.pop("$defs", {})
    reference = schema.get("$ref", "")
    name = reference.removeprefix("#/$defs/")
    if name in definitions and f'"{reference}"' not in json.dumps(definitions):
        del schema["$ref"]
        schema = {**definitions.pop(name), **schema}
    return {**schema, "$defs": definitions} if definitions else schema


def _to_violation(error: Exception) -> Violation:
    if not isinstance(error, msgspec.ValidationError):
        return Violation(path="", message="is nested too deeply")
    text = str(error)
    location = _MSGSPEC_LOCATION.search(text)
    if location is None:
        return Violation(path="", message=bound_message(text))
    parts = (name or index for name, index in _PATH_PART.findall(location["path"]))
    pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)
    return Violation(path=pointer, message=bound_message(text[: location.start()]))

"""The OpenAPI document of the API, made from the types that decode and encode it.

drf-spectacular walks the addresses and puts the document together; what each operation is comes from the views, and
what each type is from msgspec, as on the wire. What belongs here is the form of the document.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ComponentRegistry, ResolvedComponent
from msgspec import Struct

from protocol.api.problems import PROBLEM_MEDIA_TYPE, Problem
from protocol.api.responses import JSON_MEDIA_TYPE

JsonSchema = dict[str, Any]
REFERENCE: Final = "#/components/schemas/{name}"
BEARER: Final = "bearer"


class Access(enum.Enum):
    """Who must say who they are, as OpenAPI's ``security``."""

    PUBLIC = "public"
    OPTIONAL = "optional"
    """In the header or in the body."""
    AUTHENTICATED = "authenticated"


class Parameter(Struct, frozen=True, kw_only=True):
    """A name in the address, the query or the headers."""

    name: str
    place: str
    """``path``, ``query`` or ``header``."""
    schema: JsonSchema
    description: str = ""
    example: Any = None


class Content(Struct, frozen=True, kw_only=True):
    """What a body is: of a type, or as a schema says."""

    schema: type | JsonSchema
    media_types: tuple[str, ...] = (JSON_MEDIA_TYPE,)
    example: Any = None


class Reply(Struct, frozen=True, kw_only=True):
    """What one status means."""

    description: str
    content: Content | None = None
    headers: Mapping[str, str] = {}


class Description(Struct, frozen=True, kw_only=True):
    """One operation as the document tells it; errors are added to it."""

    id: str
    tag: str
    summary: str
    text: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Content | None = None
    is_body_required: bool = True
    replies: Mapping[int, Reply]
    error_media_types: tuple[str, ...] = ()
    """In which errors may come too, as the protocol's own messages."""
    access: Access = Access.AUTHENTICATED


# drf-spectacular has no types.
_COMPONENT: Final[Any] = ResolvedComponent
_GENERATOR: Final[Any] = SchemaGenerator

ERRORS: Final[Mapping[str, str]] = {
    "400": "The request is not what this address takes.",
    "401": "The credentials are missing, or not accepted.",
    "403": "The account may not do this.",
    "429": "Too many requests.",
    "default": "Any other error, by the table of codes.",
}
_SECURITY: Final[Mapping[Access, list[JsonSchema]]] = {
    Access.PUBLIC: [],
    Access.OPTIONAL: [{BEARER: []}, {}],
    Access.AUTHENTICATED: [{BEARER: []}],
}
_PUBLIC_ERRORS: Final = ("default",)


class ViewSchema(AutoSchema):
    """What drf-spectacular asks of a view: here it is asked of the view itself."""

    def get_operation(
        self,
        path: str,  # noqa: ARG002  # drf-spectacular's signature
        path_regex: str,  # noqa: ARG002  # as above
        path_prefix: str,  # noqa: ARG002  # as above
        method: str,
        registry: ComponentRegistry,
    ) -> JsonSchema | None:
        """The operation's object; ``None`` for a view that is not of this API."""
        describe = getattr(self.view, "describe_operation", None)
        return None if describe is None else make_operation(describe(method.lower()), registry)


def make_operation(described: Description, registry: ComponentRegistry) -> JsonSchema:
    """The operation's object; the types that it names are put into the registry."""
    operation: JsonSchema = {
        "operationId": described.id,
        "tags": [described.tag],
        "summary": described.summary.rstrip("."),
        "description": described.text or described.summary,
        "responses": {
            **{str(status): _make_reply(reply, registry) for status, reply in described.replies.items()},
            **_make_errors(described, registry),
        },
        "security": _SECURITY[described.access],
    }
    if described.parameters:
        operation["parameters"] = [_make_parameter(parameter) for parameter in described.parameters]
    if described.body is not None:
        operation["requestBody"] = {
            "required": described.is_body_required,
            "content": _make_content(described.body, registry),
        }
    return operation


def find_fields(struct: type) -> tuple[JsonSchema, frozenset[str]]:
    """A structure's fields as schemas, and which are required; what they refer to must not be structures."""
    (_,), components = msgspec.json.schema_components([struct], ref_template=REFERENCE)
    found = components[struct.__name__]
    resolved = {name: _inline(field, components) for name, field in found.get("properties", {}).items()}
    return resolved, frozenset(found.get("required", ()))


def make_query_schema(schema: JsonSchema) -> JsonSchema:
    """A field's schema without null, which no query can say, and without its words, which stand beside it there."""
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "description") and value is not None}
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1:
        return {**rest, **options[0]}
    return {**rest, "anyOf": options} if options else rest


@lru_cache(maxsize=1)
def make_document() -> bytes:
    """The whole document as JSON; the same for everyone, and made once a process."""
    return msgspec.json.encode(_GENERATOR().get_schema(request=None, public=True))


def _make_errors(described: Description, registry: ComponentRegistry) -> JsonSchema:
    problem = _make_content(Content(schema=Problem, media_types=(PROBLEM_MEDIA_TYPE,)), registry)
    message: JsonSchema = {name: {"schema": {"type": "object"}} for name in described.error_media_types}
    names: Iterable[str] = _PUBLIC_ERRORS if described.access is Access.PUBLIC else ERRORS
    return {name: {"description": ERRORS[name], "content": {**problem, **message}} for name in names}


def _make_reply(reply: Reply, registry: ComponentRegistry) -> JsonSchema:
    made: JsonSchema = {"description": reply.description}
    if reply.content is not None:
        made["content"] = _make_content(reply.content, registry)
    if reply.headers:
        made["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in reply.headers.items()
        }
    return made


def _make_content(content: Content, registry: ComponentRegistry) -> JsonSchema:
    schema = content.schema if isinstance(content.schema, dict) else _refer(content.schema, registry)
    media: JsonSchema = {"schema": schema}
    if content.example is not None:
        media["examples"] = {"example": {"value": content.example}}
    return dict.fromkeys(content.media_types, media)


def _make_parameter(parameter: Parameter) -> JsonSchema:
    made: JsonSchema = {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.place == "path",
        "schema": parameter.schema,
    }
    if parameter.description:
        made["description"] = parameter.description
    if parameter.example is not None:
        made["example"] = parameter.example
    return made


def _refer(of: type, registry: ComponentRegistry) -> JsonSchema:
    """A reference to the type's schema; the schema, and all that it refers to, are put into the registry."""
    (reference,), components = msgspec.json.schema_components([of], ref_template=REFERENCE)
    for name, schema in components.items():
        component = _COMPONENT(name=name, type=ResolvedComponent.SCHEMA, schema=schema, object=name)
        registry.register_on_missing(component)
        taken = registry[component].schema
        if taken != schema:
            raise TypeError(f"the API has two types of the name {name}")
    return reference


def _inline(schema: JsonSchema, components: Mapping[str, JsonSchema]) -> JsonSchema:
    """A field's schema with what it refers to in its place."""
    if "$ref" in schema:
        schema = {**components[schema["$ref"].rpartition("/")[2]], **{k: v for k, v in schema.items() if k != "$ref"}}
    if "anyOf" in schema:
        schema = {**schema, "anyOf": [_inline(option, components) for option in schema["anyOf"]]}
    if "items" in schema:
        schema = {**schema, "items": _inline(schema["items"], components)}
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in schema.items() if value is not None
    }

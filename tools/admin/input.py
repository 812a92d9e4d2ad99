"""The form that a tool's input is written in: fields made from the version's schema, or the input as JSON.

What was typed is read here; what the version takes is decided by the service that accepts the run, whose refusal is
then shown where it belongs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django import forms
from unfold.widgets import (
    UnfoldAdminExpandableTextareaWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from protocol.admin import tell_refusal
from protocol.errors import MCPError
from tools.domain.input_forms import (
    FieldKind,
    InputField,
    Typed,
    find_field,
    make_fields,
    make_skeleton,
    read_fields,
    read_json,
)
from tools.domain.schemas import JsonSchema

FIELDS: Final = "fields"
JSON: Final = "json"
JSON_NAME: Final = "input"
_INPUT_TYPES: Final[Mapping[FieldKind, str]] = {
    FieldKind.DATE: "date",
    FieldKind.INTEGER: "number",
    FieldKind.NUMBER: "number",
}
_HINTS: Final[Mapping[FieldKind, str]] = {FieldKind.LIST: "One a line.", FieldKind.JSON: "As JSON."}


class InputForm(forms.Form):
    """What both ways share. After ``is_valid`` it has the input in ``typed``."""

    way: str
    typed: Typed

    def list_rows(self) -> list[dict[str, Any]]:
        """The fields as the page shows them, each with whether it must be filled in."""
        return [{"field": bound, "is_required": self.is_demanded(bound.name)} for bound in self]

    def is_demanded(self, name: str) -> bool:
        """Whether the schema says that the field's property must be there."""
        raise NotImplementedError

    def clean(self) -> None:
        self.typed = self.read()
        for violation in self.typed.violations:
            self.add_violation(violation.path, violation.message)

    def read(self) -> Typed:
        """What was typed."""
        raise NotImplementedError

    def add_violation(self, path: str, message: str) -> None:
        """Say what is wrong, where it is."""
        raise NotImplementedError

    def refuse(self, error: MCPError) -> None:
        """Say why the run was not accepted."""
        for violation in error.details.get("violations", []):
            self.add_violation(violation["path"], violation["message"])
        self.add_error(None, tell_refusal(error))


class FieldsForm(InputForm):
    """A field for each property."""

    way = FIELDS

    def __init__(self, input_fields: tuple[InputField, ...], data: Mapping[str, Any] | None) -> None:
        super().__init__(data)
        # Names of their own: a property may be called as anything of the page is.
        self._input_fields = {f"input-{number}": each for number, each in enumerate(input_fields)}
        self.fields.update({name: make_form_field(each) for name, each in self._input_fields.items()})

    def is_demanded(self, name: str) -> bool:
        return self._input_fields[name].is_required

    def read(self) -> Typed:
        texts = [str(self.data.get(name, "")) for name in self._input_fields]
        return read_fields(fields=tuple(self._input_fields.values()), texts=texts)

    def add_violation(self, path: str, message: str) -> None:
        found = find_field(fields=tuple(self._input_fields.values()), path=path)
        name = next((name for name, each in self._input_fields.items() if each is found), None)
        inner = path.removeprefix(found.path) if found else path
        self.add_error(name, f"{inner}: {message}" if inner else message)


class JsonForm(InputForm):
    """The whole input as JSON."""

    way = JSON
    input = forms.CharField(
        label="Input",
        required=False,
        strip=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 14, "class": "mcp-mono", "spellcheck": "false"}),
    )

    def is_demanded(self, name: str) -> bool:
        return True

    def read(self) -> Typed:
        return read_json(text=str(self.data.get(JSON_NAME, "")))

    def add_violation(self, path: str, message: str) -> None:
        self.add_error(JSON_NAME, f"{path}: {message}" if path else message)


def make_input_form(*, schema: JsonSchema, way: str, data: Mapping[str, Any] | None) -> InputForm:
    """The form for that way of writing the input; JSON where the schema has no fields."""
    input_fields = make_fields(schema=schema)
    if way == JSON or input_fields is None:
        return JsonForm(data, initial={JSON_NAME: make_skeleton(schema=schema)})
    return FieldsForm(input_fields, data)


def has_fields(*, schema: JsonSchema) -> bool:
    """Whether an input of this schema can be written into fields."""
    return make_fields(schema=schema) is not None


def make_form_field(each: InputField) -> forms.Field:
    """The field as Django and unfold show it. It takes everything: what is typed is read as a whole."""
    options: dict[str, Any] = {
        "label": each.label,
        "required": False,
        "initial": each.initial,
        "help_text": " ".join(filter(None, (each.help, _HINTS.get(each.kind)))),
    }
    attributes = dict(each.attributes)
    if each.kind is FieldKind.CHOICE:
        choices = [(choice.value_json, choice.label) for choice in each.choices]
        nothing = [("", "" if each.is_required else "not set")]
        return forms.ChoiceField(choices=nothing + choices, widget=UnfoldAdminSelectWidget(attrs=attributes), **options)
    return forms.CharField(strip=False, widget=_make_widget(each, attributes), **options)


def _make_widget(each: InputField, attributes: dict[str, str]) -> Any:
    match each.kind:
        case FieldKind.TEXT | FieldKind.LIST:
            return UnfoldAdminExpandableTextareaWidget(attrs=attributes)
        case FieldKind.JSON:
            code = {"class": "mcp-mono", "spellcheck": "false"}
            return UnfoldAdminExpandableTextareaWidget(attrs={**attributes, **code})
        case _:
            line = UnfoldAdminTextInputWidget(attrs=attributes)
            line.input_type = _INPUT_TYPES.get(each.kind, "text")
            return line

"""Django's reports of failures, which `MCP_DEBUG` shows as pages, without secrets.

Django itself hides by name, and on a debug page hardly anything: "your site is not safe anyway". Here the page is for
people who build tools and commands, and ends in screenshots and tickets. What is named like a secret is hidden, and so
is whatever has the form of one, or is one of the process's own.
"""

from __future__ import annotations

import re
from collections.abc import ItemsView, Iterable, Iterator
from pprint import pformat
from types import FrameType
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest
from django.utils.datastructures import MultiValueDict
from django.utils.safestring import SafeString
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter

HIDDEN: Final = SafeExceptionReporterFilter.cleansed_substitute
SECRET_NAMES: Final = re.compile(
    r"API_?KEY|AUTHORIZATION|TOKEN|SECRET|PASS|SIGNATURE|COOKIE|CREDENTIAL|PRIVATE|PLAINTEXT|CSRF|(^|_)(CODES?|KEY|RAW|STAMP)$",
    re.IGNORECASE,
)
MAX_CHARACTERS: Final = 4096
"""Of one variable; as Django's page cuts them."""


class Shown(str):
    """A variable's value as the page has it: text that stands for itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class ReportFilter(SafeExceptionReporterFilter):
    """See the module."""

    def is_active(self, request: HttpRequest | None) -> bool:  # noqa: ARG002  # Django's signature
        return True

    def cleanse_setting(self, key: Any, value: Any) -> Any:
        if isinstance(key, str) and value and isinstance(value, str | bytes) and SECRET_NAMES.search(key):
            return HIDDEN
        cleansed = super().cleanse_setting(key, value)
        return settings.REDACTOR.redact(cleansed) if isinstance(cleansed, str) else cleansed

    def get_post_parameters(self, request: HttpRequest | None) -> Any:
        found = super().get_post_parameters(request)
        return cleanse_values(found) if isinstance(found, MultiValueDict) else {}

    def get_cleansed_multivaluedict(self, request: HttpRequest, multivaluedict: Any) -> Any:
        return cleanse_values(super().get_cleansed_multivaluedict(request, multivaluedict))

    def get_traceback_frame_variables(self, request: HttpRequest, tb_frame: FrameType) -> ItemsView[str, Any]:
        variables: Iterable[tuple[str, Any]] = super().get_traceback_frame_variables(request, tb_frame)
        return dict(self._show(variables)).items()

    def _show(self, variables: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        for name, value in variables:
            if SECRET_NAMES.search(name) and isinstance(value, str | bytes | tuple | list | dict):
                yield name, Shown(HIDDEN)
                continue
            try:
                text = pformat(self.cleanse_setting(name, value) if isinstance(value, dict) else value)
            except Exception as error:  # noqa: BLE001  # see below
                # Whatever somebody's repr does must not take the page away.
                text = f"Error in formatting: {type(error).__name__}"
            yield name, Shown(settings.REDACTOR.redact(text[:MAX_CHARACTERS]))


def cleanse_values(values: MultiValueDict[str, Any]) -> MultiValueDict[str, Any]:
    """A form's or a query's values, those of secretive names hidden."""
    cleanse = ReportFilter().cleanse_setting
    return MultiValueDict({name: [cleanse(name, each) for each in values.getlist(name)] for name in values})


class RedactedReporter(ExceptionReporter):
    """Django's, whose finished text passes the redactor too: messages, queries, lines of code."""

    def get_traceback_data(self) -> dict[str, Any]:
        data: dict[str, Any] = super().get_traceback_data()
        if self.request is not None:
            data["request_GET_items"] = cleanse_values(self.request.GET).items()
        return data

    def get_traceback_html(self) -> SafeString:
        return SafeString(settings.REDACTOR.redact(super().get_traceback_html()))

    def get_traceback_text(self) -> SafeString:
        return SafeString(settings.REDACTOR.redact(super().get_traceback_text()))

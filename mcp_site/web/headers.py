"""The headers that bound what a browser does with an answer: Content-Security-Policy 3, Permissions-Policy, caching.

The policies are constants, one for each part of the site, since every script of ours is a file: no nonces, nothing that
a view could forget. Django's own ``SecurityMiddleware`` adds HSTS, ``nosniff``, the referrer and the opener policy.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

CSP_HEADER: Final = "Content-Security-Policy"
OPENER_HEADER: Final = "Cross-Origin-Opener-Policy"


def make_policy(**directives: str) -> str:
    """A policy that allows nothing but these; ``script_src`` stands for ``script-src``."""
    nothing = {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'"}
    given = {name.replace("_", "-"): value for name, value in directives.items()}
    return "; ".join(f"{name} {value}" for name, value in {**nothing, "object-src": "'none'", **given}.items())


NOTHING_POLICY: Final = make_policy()
"""Of what is no page: JSON, event streams, files. Opened by itself it loads, runs and sends nothing."""
PAGE: Final = {
    # unfold and Swagger UI put styles into elements.
    "style_src": "'self' 'unsafe-inline'",
    "img_src": "'self' data:",
    "font_src": "'self' data:",
    "connect_src": "'self'",
}
CONSOLE_POLICY: Final = make_policy(
    # unfold's templates are written for Alpine, which makes functions of their attributes' texts. Inline scripts and
    # event handlers stay forbidden, and so does every script that is not a file of ours.
    script_src="'self' 'unsafe-eval'",
    form_action="'self'",
    **PAGE,
)
DOCUMENT_POLICY: Final = make_policy(script_src="'self'", **PAGE)
"""Of Swagger UI."""

PERMISSIONS_POLICY: Final = ", ".join(
    f"{feature}=()"
    for feature in (
        "accelerometer",
        "camera",
        "display-capture",
        "geolocation",
        "gyroscope",
        "magnetometer",
        "microphone",
        "midi",
        "payment",
        "serial",
        "usb",
    )
)
STATIC_PREFIX: Final = "/static/"
DOCUMENT_PATH: Final = "/api/docs/"
MACHINE_PREFIXES: Final = ("/api/", STATIC_PREFIX, "/healthz", "/readyz")


def choose_policy(path: str) -> str:
    """The policy of what stands at the path. Whatever is not known to be for machines may be a page, an error's too."""
    if path == DOCUMENT_PATH:
        return DOCUMENT_POLICY
    return NOTHING_POLICY if path.startswith(MACHINE_PREFIXES) else CONSOLE_POLICY


def add_headers(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """The answer with its headers."""
    response.headers[CSP_HEADER] = choose_policy(request.path)
    response.headers["Permissions-Policy"] = PERMISSIONS_POLICY
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    # Swagger UI's view would have it otherwise, for a sign-on that is not used here.
    response.headers[OPENER_HEADER] = "same-origin"
    if not request.path.startswith(STATIC_PREFIX):
        response.headers.setdefault("Cache-Control", "no-store")
    return response


@sync_and_async_middleware
def security_headers(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Django's middleware, outermost: static files, redirects and errors have the headers too.

    Native in both ways, so that no request changes threads for it.
    """
    if iscoroutinefunction(get_response):
        get_later: Callable[[HttpRequest], Awaitable[HttpResponseBase]] = get_response

        async def answer_later(request: HttpRequest) -> HttpResponseBase:
            return add_headers(request, await get_later(request))

        return answer_later

    def answer(request: HttpRequest) -> HttpResponseBase:
        return add_headers(request, get_response(request))

    return answer

"""``/healthz`` and ``/readyz``: for balancers, service managers and whoever looks. No account is needed."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from mcp_site.monitoring import readiness


@require_safe
@never_cache
async def show_health(_request: HttpRequest) -> HttpResponse:
    """200 while the process answers; it asks nothing of anything else."""
    return HttpResponse(b'{"status":"ok"}', content_type="application/json")


@require_safe
@never_cache
async def show_readiness(_request: HttpRequest) -> HttpResponse:
    """200 when a command could be served now, else 503; either way what each check found."""
    found = await readiness.get_prober().get_readiness()
    return HttpResponse(readiness.encode(found), status=200 if found.is_ready else 503, content_type="application/json")

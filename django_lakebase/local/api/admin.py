"""The emulator's own admin API under ``/_local/``: a page, faults, counters, facts."""

import html
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from aiohttp import web

from django_lakebase.local.fault_effects import FaultEffects
from django_lakebase.local.faults import FAULTS, FaultRegistry
from django_lakebase.local.gateway.server import Gateway
from django_lakebase.local.state.model import WorkspaceState
from django_lakebase.local.tokens import Audience, Signer

from .app import WorkspaceApi
from .credentials import CredentialHandlers
from .errors import invalid
from .params import read_json
from .serializers import format_timestamp, get_endpoint_state

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Local Lakebase</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 45rem; margin: 2rem auto;
  padding: 0 1rem; color-scheme: light dark; overflow-wrap: anywhere; }}
h2 {{ margin-top: 2rem; border-bottom: 1px solid #8886; }}
dt {{ font-weight: 600; margin-top: .6rem; }}
dd {{ margin: 0; opacity: .85; }}
.on dt {{ color: #c33; }}
</style></head><body>
<h1>Local Lakebase</h1>
<p>An emulator for development and tests, as of {now}.</p>
<h2>Endpoints</h2><dl>{endpoints}</dl>
<h2>Branches</h2><dl>{branches}</dl>
<h2>Active faults</h2><dl class="on">{active}</dl>
<h2>Counters</h2><dl>{counters}</dl>
<h2>Available faults</h2>
<p><code>lakebase-local fault set NAME key=value</code></p><dl>{faults}</dl>
</body></html>
"""


class AdminApi:
    """The routes under ``/_local/``."""

    def __init__(
        self,
        state: WorkspaceState,
        signer: Signer,
        faults: FaultRegistry,
        gateway: Gateway,
        api: WorkspaceApi,
        credentials: CredentialHandlers,
        effects: FaultEffects,
    ) -> None:
        self._state, self._signer, self._faults = state, signer, faults
        self._gateway, self._api, self._effects = gateway, api, effects
        self._credentials = credentials
        self.facts: dict[str, Any] = {}
        # The variables of each identity.
        self.environments: dict[str, dict[str, str]] = {}

    def add_routes(self, app: web.Application) -> None:
        """Add the routes to *app*."""
        add = app.router.add_route
        add("GET", "/_local/", self._show_page)
        add("GET", "/_local/faults", self._list_faults)
        add("PUT", "/_local/faults/{name}", self._set_fault)
        add("DELETE", "/_local/faults", self._clear_faults)
        add("DELETE", "/_local/faults/{name}", self._clear_faults)
        add("GET", "/_local/counters", self._list_counters)
        add("DELETE", "/_local/counters", self._reset_counters)
        add("GET", "/_local/facts", self._list_facts)
        add("GET", "/_local/environments/{identity}", self._list_environment)
        add("POST", "/_local/credentials", self._issue_token)

    async def _show_page(self, _: web.Request) -> web.Response:
        text = PAGE.format(
            now=format_timestamp(time.time())[:19].replace("T", " ") + " UTC",
            endpoints=_render_entries(self._describe_endpoints()),
            branches=_render_entries(self._describe_branches()),
            active=_render_entries(
                (name, ", ".join(f"{k}={v}" for k, v in options.items()))
                for name, options in self._faults.list_active().items()
            ),
            counters=_render_entries(_format_counters(self._count())),
            faults=_render_entries(
                (name, fault.summary) for name, fault in FAULTS.items()
            ),
        )
        return web.Response(text=text, content_type="text/html")

    def _describe_endpoints(self) -> Iterator[tuple[str, str]]:
        for ref in self._state.endpoint_refs():
            kind = "read-write" if ref.endpoint.is_read_write else "read-only"
            state = get_endpoint_state(ref)
            if ref.endpoint.is_disabled:
                state += ", disabled"
            text = f"{ref.endpoint.host()}\n{state}, {kind}"
            yield ref.name, text

    def _describe_branches(self) -> Iterator[tuple[str, str]]:
        for project in self._state.live_projects:
            for branch in project.live_branches:
                facts = [branch.current_state]
                if branch.is_protected:
                    facts.append("protected")
                if branch.source:
                    facts.append(f"from {branch.source}")
                if branch.expires_at is not None:
                    facts.append(
                        f"expires {format_timestamp(branch.expires_at)[:19]} UTC"
                    )
                yield branch.name, ", ".join(facts)

    async def _list_faults(self, _: web.Request) -> web.Response:
        return web.json_response(self._faults.list_active())

    async def _set_fault(self, request: web.Request) -> web.Response:
        options = await read_json(request)
        await self._effects.switch_on(request.match_info["name"], options)
        return web.json_response(self._faults.list_active())

    async def _clear_faults(self, request: web.Request) -> web.Response:
        await self._effects.switch_off(request.match_info.get("name"))
        return web.json_response(self._faults.list_active())

    def _count(self) -> dict[str, Any]:
        counters = self._gateway.counters
        return {
            "requests": dict(self._api.requests),
            "credentials_issued": self._credentials.issued,
            "logins": counters.logins,
            "direct_logins": counters.direct_logins,
            "rejections": counters.rejections,
            "open_connections": len(self._gateway.connections),
        }

    async def _list_counters(self, _: web.Request) -> web.Response:
        return web.json_response(self._count())

    async def _reset_counters(self, request: web.Request) -> web.Response:
        self._api.requests.clear()
        self._credentials.issued = 0
        self._gateway.counters.reset()
        return await self._list_counters(request)

    async def _list_facts(self, _: web.Request) -> web.Response:
        return web.json_response(self.facts)

    async def _list_environment(self, request: web.Request) -> web.Response:
        identity = request.match_info["identity"]
        if identity not in self.environments:
            known = ", ".join(sorted(self.environments))
            raise invalid(f'There is no identity "{identity}". Choose one of: {known}.')
        return web.json_response(self.environments[identity])

    async def _issue_token(self, request: web.Request) -> web.Response:
        body = await read_json(request)
        subject = str(body.get("user", self._state.client_id))
        try:
            ttl = float(body.get("ttl", self.facts["token_ttl"]))
        except (TypeError, ValueError):
            raise invalid("Field 'ttl' must be a number of seconds.") from None
        token, expires_at = self._signer.sign(Audience.DATABASE, subject, ttl)
        expires_in = expires_at - time.time()
        return web.json_response({"token": token, "expires_in": expires_in})


def _format_counters(counters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name and text of each counter; requests have one line per path."""
    for name, value in counters.items():
        by_path = value.items() if isinstance(value, Mapping) else ()
        lines = "\n".join(f"{count} x {path}" for path, count in by_path)
        yield name, lines or str(value or 0)


def _render_entries(pairs: Iterable[tuple[str, str]]) -> str:
    """
    Return *pairs* as the terms and descriptions of an HTML description list.

    Long names can wrap after a slash.
    """
    lines = []
    for term, description in pairs:
        name = html.escape(term).replace("/", "/<wbr>")
        text = html.escape(description).replace("\n", "<br>")
        lines.append(f"<dt>{name}</dt><dd>{text}</dd>")
    return "".join(lines) or "<dd>none</dd>"

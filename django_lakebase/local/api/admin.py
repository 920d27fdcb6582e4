"""What is our own, under ``/_local/``: a page, faults, counters and facts."""

import html
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from aiohttp import web

from django_lakebase.local.faults.effects import Deeds
from django_lakebase.local.faults.registry import FAULTS, Faults
from django_lakebase.local.gateway.server import Gateway
from django_lakebase.local.state.model import Estate, branch_name, endpoint_name
from django_lakebase.local.tokens import Kind, Signer

from . import serializers
from .app import Control
from .params import invalid, read_object

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
<h2>Faults that are on</h2><dl class="on">{on}</dl>
<h2>Counters</h2><dl>{counters}</dl>
<h2>Faults that can be switched on</h2>
<p><code>lakebase-local fault set NAME key=value</code></p><dl>{faults}</dl>
</body></html>
"""


class Console:
    """The routes under ``/_local/``."""

    def __init__(
        self,
        estate: Estate,
        signer: Signer,
        faults: Faults,
        gateway: Gateway,
        control: Control,
        deeds: Deeds,
    ) -> None:
        self._estate, self._signer, self._faults = estate, signer, faults
        self._gateway, self._control, self._deeds = gateway, control, deeds
        self.facts: dict[str, Any] = {}

    def add_routes(self, app: web.Application) -> None:
        """Add them to *app*."""
        add = app.router.add_route
        add("GET", "/_local/", self._page)
        add("GET", "/_local/faults", self._list_faults)
        add("PUT", "/_local/faults/{name}", self._set_fault)
        add("DELETE", "/_local/faults", self._clear_faults)
        add("DELETE", "/_local/faults/{name}", self._clear_faults)
        add("GET", "/_local/counters", self._counters)
        add("DELETE", "/_local/counters", self._reset_counters)
        add("GET", "/_local/facts", self._tell_facts)
        add("POST", "/_local/credentials", self._credentials)

    async def _page(self, _: web.Request) -> web.Response:
        on = self._faults.listed()
        text = PAGE.format(
            now=serializers.moment(time.time())[:19].replace("T", " ") + " UTC",
            endpoints=_entries(self._endpoints()),
            branches=_entries(self._branches()),
            on=_entries(
                (name, ", ".join(f"{k}={v}" for k, v in settings.items()))
                for name, settings in on.items()
            ),
            counters=_entries(_told(self._count())),
            faults=_entries((name, fault.means) for name, fault in FAULTS.items()),
        )
        return web.Response(text=text, content_type="text/html")

    def _endpoints(self) -> Iterator[tuple[str, str]]:
        for place in self._estate.places():
            kind = "read-write" if place.endpoint.is_read_write else "read-only"
            state = serializers.endpoint_state(place)
            if place.endpoint.is_disabled:
                state += ", disabled"
            told = f"{place.endpoint.host()}\n{state}, {kind}"
            yield endpoint_name(place), told

    def _branches(self) -> Iterator[tuple[str, str]]:
        for project in self._estate.live_projects:
            for branch in project.live_branches:
                told = [branch.state]
                if branch.is_protected:
                    told.append("protected")
                if branch.source:
                    told.append(f"from {branch.source}")
                if branch.expires_at is not None:
                    told.append(
                        f"expires {serializers.moment(branch.expires_at)[:19]} UTC"
                    )
                yield branch_name(project, branch), ", ".join(told)

    async def _list_faults(self, _: web.Request) -> web.Response:
        return web.json_response(self._faults.listed())

    async def _set_fault(self, request: web.Request) -> web.Response:
        given = await read_object(request)
        await self._deeds.switch_on(request.match_info["name"], given)
        return web.json_response(self._faults.listed())

    async def _clear_faults(self, request: web.Request) -> web.Response:
        await self._deeds.switch_off(request.match_info.get("name"))
        return web.json_response(self._faults.listed())

    def _count(self) -> dict[str, Any]:
        counters = self._gateway.counters
        return {
            "requests": dict(self._control.requests),
            "credentials_issued": self._control.issued,
            "logins": counters.logins,
            "refusals": counters.refusals,
            "open_connections": len(self._gateway.links),
        }

    async def _counters(self, _: web.Request) -> web.Response:
        return web.json_response(self._count())

    async def _reset_counters(self, request: web.Request) -> web.Response:
        self._control.requests.clear()
        self._control.issued = 0
        self._gateway.counters.reset()
        return await self._counters(request)

    async def _tell_facts(self, _: web.Request) -> web.Response:
        return web.json_response(self.facts)

    async def _credentials(self, request: web.Request) -> web.Response:
        body = await read_object(request)
        subject = str(body.get("user", self._estate.client_id))
        try:
            life = float(body.get("ttl", self.facts["token_ttl"]))
        except (TypeError, ValueError):
            raise invalid("ttl is a number of seconds.") from None
        token, expires_at = self._signer.sign(Kind.DATABASE, subject, life)
        left = expires_at - time.time()
        return web.json_response({"token": token, "seconds": left})


def _told(counters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the counters in words: the requests by path, one a line."""
    for name, value in counters.items():
        by_path = value.items() if isinstance(value, Mapping) else ()
        lines = "\n".join(f"{count} x {path}" for path, count in by_path)
        yield name, lines or str(value or 0)


def _entries(pairs: Iterable[tuple[str, str]]) -> str:
    """Return the pairs as terms and what is said of them; names break at slashes."""
    lines = []
    for term, told in pairs:
        name = html.escape(term).replace("/", "/<wbr>")
        text = html.escape(told).replace("\n", "<br>")
        lines.append(f"<dt>{name}</dt><dd>{text}</dd>")
    return "".join(lines) or "<dd>none</dd>"

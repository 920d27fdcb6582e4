"""What is our own, under ``/_local/``: a page, faults, counters and facts."""

import html
import time
from typing import Any

from aiohttp import web

from . import shapes
from .control import Control
from .deeds import Deeds
from .estate import Estate, endpoint_name
from .faults import FAULTS, Faults
from .gateway import Gateway
from .problems import invalid, read_object
from .tokens import Kind, Signer

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Local Lakebase</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; color-scheme: light dark; }}
table {{ border-collapse: collapse; width: 100%; }}
td, th {{ text-align: left; padding: .3rem .8rem .3rem 0; vertical-align: top;
  overflow-wrap: anywhere; border-bottom: 1px solid #8884; }}
.on {{ font-weight: bold; color: #c33; }}
</style></head><body>
<h1>Local Lakebase</h1>
<p>An emulator for development and tests; as of {now}.</p>
<h2>Endpoints</h2>{endpoints}
<h2>Branches</h2>{branches}
<h2>Faults</h2>{faults}
<h2>Counters</h2>{counters}
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
        text = PAGE.format(
            now=shapes.moment(time.time()),
            endpoints=self._endpoints(),
            branches=self._branches(),
            faults=self._fault_rows(),
            counters=_table([[k, str(v)] for k, v in self._count().items()]),
        )
        return web.Response(text=text, content_type="text/html")

    def _endpoints(self) -> str:
        rows = [["endpoint", "host", "state", "type"]]
        for place in self._estate.places():
            kind = "read-write" if place.endpoint.is_read_write else "read-only"
            state = shapes.endpoint_state(place)
            if place.endpoint.is_disabled:
                state += ", disabled"
            rows.append([endpoint_name(place), place.endpoint.host(), state, kind])
        return _table(rows)

    def _branches(self) -> str:
        rows = [["branch", "state", "from", "expires"]]
        for project in self._estate.projects.values():
            for branch in project.live_branches:
                ends = branch.expires_at
                expires = "never" if ends is None else shapes.moment(ends)
                name = f"{project.name}/branches/{branch.id}"
                state = branch.state + (", protected" if branch.is_protected else "")
                rows.append([name, state, branch.source or "", expires])
        return _table(rows)

    def _fault_rows(self) -> str:
        on = self._faults.listed()
        rows = []
        for name, fault in FAULTS.items():
            told = ", ".join(f"{k}={v}" for k, v in on.get(name, {}).items())
            rows.append([name, f"on {told}".strip() if name in on else "", fault.means])
        return _table(rows, marked=1)

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


def _table(rows: list[list[str]], marked: int = -1) -> str:
    lines = []
    for row in rows:
        cells = "".join(
            f"<td{' class=on' if index == marked and cell else ''}>"
            f"{html.escape(cell)}</td>"
            for index, cell in enumerate(row)
        )
        lines.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"

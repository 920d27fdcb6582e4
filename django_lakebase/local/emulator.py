"""The whole: PostgreSQL, the gateway and the control plane, started and stopped."""

import contextlib
import os
import shlex
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from . import certs
from .api.admin import Console
from .api.app import Control
from .api.operations import Operations
from .api.resources import Tree
from .api.urls import Routes
from .client import FOREIGN
from .data_dir import Directory
from .faults.effects import Deeds
from .faults.registry import Faults, Value
from .gateway.messages import Dialect
from .gateway.pgbouncer import Poolers
from .gateway.server import Gateway
from .postgres import binaries, provision, server
from .postgres.binaries import LocalError
from .postgres.computes import Fleet
from .postgres.server import Machine
from .state import model
from .state.model import Estate, Place, Store
from .state.reaper import Watch
from .tokens import Signer

HOSTADDR = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line decides; *token_ttl* and *suspend_after* are in seconds."""

    token_ttl: float = 3600.0
    suspend_after: float = model.SUSPEND_AFTER
    data: Path | None = None
    postgres: str = "auto"
    pg_port: int = 0
    api_port: int = 0
    api_tls: bool = False
    libpq: bool = False
    grants: str = "default"
    dialect: Dialect = Dialect.LIKELY
    faults: list[tuple[str, dict[str, Value]]] = field(default_factory=list)


class Emulator:
    """A local Lakebase; *say* is told of the progress."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self._options, self._say = options, say
        self._stack = contextlib.AsyncExitStack()
        self.environment: dict[str, str] = {}
        self.facts: dict[str, Any] = {}

    async def start(self) -> None:
        """Start everything; raises LocalError, having stopped what was started."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop everything; no process, socket or directory stays."""
        await self._stack.aclose()

    async def _start(self) -> None:
        options = self._options
        found = binaries.find(options.postgres)
        directory = self._directory()
        self._say(f"starting PostgreSQL {found.version}")
        machine = Machine(
            binaries=found,
            directory=directory.path,
            lock=directory.lock,
            is_kept=directory.is_kept,
            account=server.account(),
        )
        store = Store(directory.path)
        held = store.load()
        if not held.projects:
            held.add_home(found.version, options.suspend_after)
        fleet = await self._fleet(machine, held)
        store.save(held)
        await self._serve(machine, held, fleet, store)

    async def _serve(
        self, machine: Machine, held: Estate, fleet: Fleet, store: Store
    ) -> None:
        options, home = self._options, _home(held)
        ca_file = machine.directory / "ca.pem"
        authority, host = certs.Authority(ca_file), home.endpoint.host()
        context = authority.server_context(host, f"*.{host.partition('.')[2]}")
        signer, faults = Signer(held.signing_key), Faults()
        poolers, operations = Poolers(machine), Operations()
        self._stack.push_async_callback(poolers.stop)
        gateway = Gateway(
            held,
            fleet,
            signer,
            faults,
            context,
            poolers=poolers,
            dialect=options.dialect,
        )
        port = await self._gateway(gateway)
        tree = Tree(held, fleet, operations, gateway, save=lambda: store.save(held))
        routes = Routes(tree)
        control = Control(
            held, signer, faults, tree, routes, token_ttl=options.token_ttl
        )
        deeds = Deeds(held, fleet, gateway, faults, grants=options.grants)
        console = Console(held, signer, faults, gateway, control, deeds)
        self._stack.callback(operations.close)
        watch = Watch(tree)
        self._stack.callback(watch.start().cancel)
        secure = authority.server_context(HOSTADDR) if options.api_tls else None
        api_url, url = await self._control(control, console, secure)
        await deeds.settle()
        self._stack.push_async_callback(deeds.switch_off)
        for name, settings in options.faults:
            await deeds.switch_on(name, settings)
        self._tell(home, held, port, url, ca_file)
        if secure is not None:
            self.environment["DATABRICKS_HOST"] = api_url
            self.environment["REQUESTS_CA_BUNDLE"] = str(ca_file)
        self.facts = self._facts(home, held, port, url)
        self.facts["postgres_socket"] = str(fleet.of(home.branch).server.socket)
        console.facts = self.facts
        name = self.environment["ENDPOINT_NAME"]
        self._say(f"serving {name}: API at {api_url}, Postgres at port {port}")

    async def _fleet(self, machine: Machine, held: Estate) -> Fleet:
        fleet = Fleet(machine)
        self._stack.push_async_callback(fleet.stop)
        home = held.home.default_branch
        if home.state == "READY":
            await fleet.start_all(held)
        elif await fleet.make(held.home, home):
            door = fleet.of(home).door
            await provision.furnish_home(door, held, self._options.grants)
        home.enter("READY")
        return fleet

    def _directory(self) -> Directory:
        data = self._options.data
        directory = Directory.temporary() if data is None else Directory.kept(data)
        self._stack.callback(directory.close)
        return directory

    async def _gateway(self, gateway: Gateway) -> int:
        self._stack.callback(gateway.close)
        port = self._options.pg_port
        try:
            return await gateway.start(port)
        except OSError as exc:
            raise _taken("--pg-port", port, exc) from exc

    async def _control(
        self, control: Control, console: Console, secure: ssl.SSLContext | None
    ) -> tuple[str, str]:
        """Serve the API; return its URL, and the one for what is under /_local/."""
        application = control.application()
        console.add_routes(application)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        url = await self._listen(runner, self._options.api_port, secure)
        # Clients of /_local/ need no certificate.
        return url, await self._listen(runner, 0) if secure else url

    async def _listen(
        self, runner: web.AppRunner, port: int, secure: ssl.SSLContext | None = None
    ) -> str:
        """Listen on *port* (0: a free one), with TLS if *secure*; return the URL."""
        site = web.TCPSite(
            runner, HOSTADDR, port, ssl_context=secure, shutdown_timeout=0.1
        )
        try:
            await site.start()
        except OSError as exc:
            raise _taken("--api-port", port, exc) from exc
        number = runner.addresses[-1][1]
        return f"{'https' if secure else 'http'}://{HOSTADDR}:{number}"

    def _tell(
        self, home: Place, held: Estate, port: int, url: str, ca_file: Path
    ) -> None:
        self.environment = {
            "DATABRICKS_HOST": url,
            "DATABRICKS_CLIENT_ID": held.client_id,
            "DATABRICKS_CLIENT_SECRET": held.client_secret,
            "ENDPOINT_NAME": model.endpoint_name(home),
            "PGHOST": home.endpoint.host(),
            "PGPORT": str(port),
            "PGDATABASE": model.DATABASE,
            "PGUSER": held.client_id,
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": str(ca_file),
            "LAKEBASE_HOSTADDR": HOSTADDR,
            "LAKEBASE_LOCAL_URL": url,
        }
        if self._options.libpq:
            self.environment["PGHOSTADDR"] = HOSTADDR

    def _facts(self, home: Place, held: Estate, port: int, url: str) -> dict[str, Any]:
        return {
            "url": url,
            "process": os.getpid(),
            "project": home.project.name,
            "branch": model.branch_name(home.project, home.branch),
            "endpoint": model.endpoint_name(home),
            "host": home.endpoint.host(),
            "hostaddr": HOSTADDR,
            "port": port,
            "database": model.DATABASE,
            "ca_file": self.environment["PGSSLROOTCERT"],
            "owner": held.owner,
            "owner_token": held.owner_token,
            "service_principal": held.client_id,
            "group": model.GROUP,
            "native_user": held.native_user,
            "native_password": held.native_password,
            "postgres_version": home.project.pg_version,
            "token_ttl": self._options.token_ttl,
        }


def _home(held: Estate) -> Place:
    branch = held.home.default_branch
    return Place(held.home, branch, branch.endpoints[model.ENDPOINT])


def clean(environment: dict[str, str]) -> dict[str, str]:
    """
    Return *environment* without what speaks of another database or workspace.

    A proxy that it names is not to be asked for this machine's own ports.
    """
    kept = {k: v for k, v in environment.items() if not k.startswith(FOREIGN)}
    if any(name.lower() in ("http_proxy", "all_proxy") for name in kept):
        known = kept.get("no_proxy") or kept.get("NO_PROXY") or ""
        kept["no_proxy"] = kept["NO_PROXY"] = f"{known},{HOSTADDR}".lstrip(",")
    return kept


def as_lines(environment: dict[str, str], style: str) -> str:
    """Return *environment* for a shell, or for a dotenv file."""
    export = "export " if style == "shell" else ""
    return "\n".join(
        f"{export}{name}={shlex.quote(value)}" for name, value in environment.items()
    )


def _taken(option: str, port: int, exc: OSError) -> LocalError:
    return LocalError(
        f"Port {port} of {HOSTADDR} cannot be used: {exc.strerror}. Give {option} "
        "another one, or leave it out for a free one."
    )

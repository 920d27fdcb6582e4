"""The whole: PostgreSQL, the gateway and the control plane, started and stopped."""

import contextlib
import shlex
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from . import catalog, estate, postgres, tls
from .client import FOREIGN
from .control import Control
from .directory import Directory
from .faults import Faults, Value
from .gateway import Gateway
from .postgres import LocalError, Server
from .tokens import Signer

HOSTADDR = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line decides; *token_ttl* is in seconds."""

    token_ttl: float = 3600.0
    data: Path | None = None
    postgres: str = "auto"
    pg_port: int = 0
    api_port: int = 0
    libpq: bool = False
    grants: str = "default"
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
        binaries = postgres.find(options.postgres)
        directory = self._directory()
        self._say(f"starting PostgreSQL {binaries.version}")
        server = self._server(binaries, directory)
        home = estate.load(directory.path)
        ca_file = directory.path / "ca.pem"
        context = tls.server_context(home.host, ca_file)
        server.wait()
        await catalog.furnish(server.socket, home, options.grants)
        signer, faults = Signer(home.signing_key), Faults()
        gateway = Gateway(home, signer, faults, server, context)
        port = await self._gateway(gateway)
        control = Control(home, signer, faults, gateway, token_ttl=options.token_ttl)
        url = await self._control(control)
        for name, settings in options.faults:
            await control.set_fault(name, settings)
        self._tell(home, port, url, ca_file)
        control.facts = self.facts = self._facts(home, port, url, server.version)
        self._say(f"serving {home.endpoint}: API at {url}, Postgres at port {port}")

    def _directory(self) -> Directory:
        data = self._options.data
        directory = Directory.temporary() if data is None else Directory.kept(data)
        self._stack.callback(directory.close)
        return directory

    def _server(self, binaries: postgres.Binaries, directory: Directory) -> Server:
        path, is_kept = directory.path, directory.is_kept
        port, lock = _free_port(), directory.lock
        server = Server(binaries, path, port, lock=lock, is_kept=is_kept)
        self._stack.callback(server.stop)
        server.start()
        return server

    async def _gateway(self, gateway: Gateway) -> int:
        self._stack.callback(gateway.close)
        port = self._options.pg_port
        try:
            return await gateway.start(port)
        except OSError as exc:
            raise _taken("--pg-port", port, exc) from exc

    async def _control(self, control: Control) -> str:
        runner = web.AppRunner(control.application(), access_log=None)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        port = self._options.api_port
        site = web.TCPSite(runner, HOSTADDR, port, shutdown_timeout=0.1)
        try:
            await site.start()
        except OSError as exc:
            raise _taken("--api-port", port, exc) from exc
        number = runner.addresses[0][1]
        return f"http://{HOSTADDR}:{number}"

    def _tell(self, home: estate.Estate, port: int, url: str, ca_file: Path) -> None:
        self.environment = {
            "DATABRICKS_HOST": url,
            "DATABRICKS_CLIENT_ID": home.client_id,
            "DATABRICKS_CLIENT_SECRET": home.client_secret,
            "ENDPOINT_NAME": home.endpoint,
            "PGHOST": home.host,
            "PGPORT": str(port),
            "PGDATABASE": estate.DATABASE,
            "PGUSER": home.client_id,
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": str(ca_file),
            "LAKEBASE_HOSTADDR": HOSTADDR,
            "LAKEBASE_LOCAL_URL": url,
        }
        if self._options.libpq:
            self.environment["PGHOSTADDR"] = HOSTADDR

    def _facts(
        self, home: estate.Estate, port: int, url: str, version: int
    ) -> dict[str, Any]:
        return {
            "url": url,
            "project": home.project,
            "branch": home.branch,
            "endpoint": home.endpoint,
            "host": home.host,
            "hostaddr": HOSTADDR,
            "port": port,
            "database": estate.DATABASE,
            "ca_file": self.environment["PGSSLROOTCERT"],
            "owner": home.owner,
            "owner_token": home.owner_token,
            "service_principal": home.client_id,
            "native_user": home.native_user,
            "native_password": home.native_password,
            "postgres_version": version,
            "token_ttl": self._options.token_ttl,
        }


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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOSTADDR, 0))
        return int(probe.getsockname()[1])

"""The emulator: starts and stops PostgreSQL, the gateway and the API."""

import contextlib
import os
import shlex
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from .api.admin import AdminApi
from .api.app import WorkspaceApi
from .api.auth import RequestAuthenticator
from .api.client_secrets import ClientSecretHandlers
from .api.credentials import CredentialHandlers
from .api.fault_responses import FaultInjector
from .api.operations import Operations
from .api.resources import Resources
from .certs import CertificateAuthority, GatewayContexts
from .client import HOSTADDR
from .data_dir import DataDir
from .errors import LocalError
from .fault_effects import FaultEffects
from .faults import FaultRegistry, Value
from .gateway.pgbouncer import PgBouncers
from .gateway.server import Gateway
from .login_errors import Dialect
from .postgres import binaries, provision
from .postgres.computes import Computes
from .postgres.launcher import Launcher, find_account
from .reaper import Reaper
from .state import model
from .state.model import EndpointRef, WorkspaceState
from .state.store import StateStore
from .tokens import Signer


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the command; *token_ttl* and *suspend_after* are in seconds."""

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
    """A local Lakebase; *log* is called with each progress message."""

    def __init__(self, options: Options, log: Callable[[str], None]) -> None:
        self._options, self._log = options, log
        self._stack = contextlib.AsyncExitStack()
        self.environment: dict[str, str] = {}
        self.facts: dict[str, Any] = {}

    async def start(self) -> None:
        """Start all servers, or stop those already started and raise LocalError."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop all servers; remove their sockets and the temporary directory."""
        await self._stack.aclose()

    async def _start(self) -> None:
        options = self._options
        postgres = binaries.find_binaries(options.postgres)
        data_dir = self._open_data_dir()
        self._log(f"starting PostgreSQL {postgres.version}")
        launcher = Launcher(
            binaries=postgres,
            directory=data_dir.path,
            lock=data_dir.lock,
            is_persistent=data_dir.is_persistent,
            account=find_account(),
        )
        store = StateStore(data_dir.path)
        state = store.load()
        if not state.projects:
            state.add_default_project(postgres.version, options.suspend_after)
        computes = await self._start_computes(launcher, state)
        store.save(state)
        await self._serve(launcher, state, computes, store)

    async def _serve(
        self,
        launcher: Launcher,
        state: WorkspaceState,
        computes: Computes,
        store: StateStore,
    ) -> None:
        options, default = self._options, _get_default_endpoint(state)
        authority, new_authority = CertificateAuthority(), CertificateAuthority()
        ca_file = launcher.directory / "ca.pem"
        ca_file.write_bytes(authority.root_pem)
        ca_bundle = launcher.directory / "ca-bundle.pem"
        ca_bundle.write_bytes(authority.root_pem + new_authority.root_pem)
        host = default.endpoint.host()
        hosts = host, f"*.{host.partition('.')[2]}"
        contexts = GatewayContexts(authority, new_authority, *hosts)
        signer, faults = Signer(state.signing_key), FaultRegistry()
        pgbouncers, operations = PgBouncers(launcher), Operations()
        self._stack.push_async_callback(pgbouncers.stop)
        gateway = Gateway(
            state,
            computes,
            signer,
            faults,
            contexts,
            pgbouncers=pgbouncers,
            dialect=options.dialect,
        )
        port = await self._start_gateway(gateway)
        resources = Resources(
            state, computes, operations, gateway, save=lambda: store.save(state)
        )
        credentials = CredentialHandlers(
            resources, signer, faults, token_ttl=options.token_ttl
        )
        authenticator = RequestAuthenticator(state, signer, faults)
        api = WorkspaceApi(
            authenticator,
            FaultInjector(faults, authenticator.find_identity, state.workspace_id),
            resources,
            credentials,
            ClientSecretHandlers(state, faults),
        )
        effects = FaultEffects(state, computes, gateway, faults, grants=options.grants)
        admin_api = AdminApi(state, signer, faults, gateway, api, credentials, effects)
        self._stack.callback(operations.close)
        self._stack.callback(Reaper(resources).start().cancel)
        tls = authority.server_context(HOSTADDR) if options.api_tls else None
        api_url, url = await self._start_api(api, admin_api, tls)
        await effects.recover()
        self._stack.push_async_callback(effects.switch_off)
        for name, fault_options in options.faults:
            await effects.switch_on(name, fault_options)
        self._set_environment(default, state, port, url, ca_file)
        if tls is not None:
            self.environment["DATABRICKS_HOST"] = api_url
            self.environment["REQUESTS_CA_BUNDLE"] = str(ca_file)
        self.facts = self._collect_facts(default, state, port, url)
        socket = computes.get(default.branch).server.socket
        self.facts["postgres_socket"] = str(socket)
        self.facts["ca_bundle"] = str(ca_bundle)
        admin_api.facts = self.facts
        admin_api.environments = _build_environments(self.environment, state)
        name = self.environment["ENDPOINT_NAME"]
        self._log(f"serving {name}: API at {api_url}, Postgres on port {port}")

    async def _start_computes(
        self, launcher: Launcher, state: WorkspaceState
    ) -> Computes:
        computes = Computes(launcher)
        self._stack.push_async_callback(computes.stop_all)
        branch = state.default_project.default_branch
        if branch.current_state == "READY":
            await computes.start_all(state)
        elif await computes.create(state.default_project, branch):
            admin = computes.get(branch).admin
            await provision.provision_default_project(
                admin, state, self._options.grants
            )
        branch.set_state("READY")
        return computes

    def _open_data_dir(self) -> DataDir:
        path = self._options.data
        data_dir = (
            DataDir.create_temporary()
            if path is None
            else DataDir.open_persistent(path)
        )
        self._stack.callback(data_dir.close)
        return data_dir

    async def _start_gateway(self, gateway: Gateway) -> int:
        self._stack.callback(gateway.close)
        port = self._options.pg_port
        try:
            return await gateway.start(port)
        except OSError as exc:
            raise _port_error("--pg-port", port, exc) from exc

    async def _start_api(
        self, api: WorkspaceApi, admin_api: AdminApi, tls: ssl.SSLContext | None
    ) -> tuple[str, str]:
        """
        Serve the API; return its URL and the URL for requests under ``/_local/``.

        The two differ only with *tls*: clients of ``/_local/`` need no certificate.
        """
        application = api.create_application()
        admin_api.add_routes(application)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        url = await self._listen(runner, self._options.api_port, tls)
        return url, await self._listen(runner, 0) if tls else url

    async def _listen(
        self, runner: web.AppRunner, port: int, tls: ssl.SSLContext | None = None
    ) -> str:
        """Listen on *port* (0: any), with TLS if *tls* is set; return the URL."""
        site = web.TCPSite(
            runner, HOSTADDR, port, ssl_context=tls, shutdown_timeout=0.1
        )
        try:
            await site.start()
        except OSError as exc:
            raise _port_error("--api-port", port, exc) from exc
        number = runner.addresses[-1][1]
        return f"{'https' if tls else 'http'}://{HOSTADDR}:{number}"

    def _set_environment(
        self,
        ref: EndpointRef,
        state: WorkspaceState,
        port: int,
        url: str,
        ca_file: Path,
    ) -> None:
        self.environment = {
            "DATABRICKS_HOST": url,
            "DATABRICKS_CLIENT_ID": state.client_id,
            "DATABRICKS_CLIENT_SECRET": state.client_secret,
            "ENDPOINT_NAME": ref.name,
            "PGHOST": ref.endpoint.host(),
            "PGPORT": str(port),
            "PGDATABASE": model.DATABASE,
            "PGUSER": state.client_id,
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": str(ca_file),
            "LAKEBASE_HOSTADDR": HOSTADDR,
            "LAKEBASE_LOCAL_URL": url,
        }
        if self._options.libpq:
            self.environment["PGHOSTADDR"] = HOSTADDR

    def _collect_facts(
        self, ref: EndpointRef, state: WorkspaceState, port: int, url: str
    ) -> dict[str, Any]:
        return {
            "url": url,
            "pid": os.getpid(),
            "project": ref.project.name,
            "branch": ref.branch.name,
            "endpoint": ref.name,
            "host": ref.endpoint.host(),
            "hostaddr": HOSTADDR,
            "port": port,
            "database": model.DATABASE,
            "ca_file": self.environment["PGSSLROOTCERT"],
            "workspace_id": state.workspace_id,
            "owner": state.owner,
            "owner_token": state.owner_token,
            "developer": state.developer,
            "developer_token": state.developer_token,
            "service_principal": state.client_id,
            "group": model.GROUP,
            "native_user": state.native_user,
            "native_password": state.native_password,
            "postgres_version": ref.project.pg_version,
            "token_ttl": self._options.token_ttl,
        }


def _get_default_endpoint(state: WorkspaceState) -> EndpointRef:
    project = state.default_project
    branch = project.default_branch
    return EndpointRef(project, branch, branch.endpoints[model.ENDPOINT])


def _build_environments(
    app: dict[str, str], state: WorkspaceState
) -> dict[str, dict[str, str]]:
    """Return the variables of each identity; *app* are the service principal's."""
    login = ("DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET", "PGUSER")
    common = {name: value for name, value in app.items() if name not in login}
    people = {
        "owner": (state.owner, state.owner_token),
        "developer": (state.developer, state.developer_token),
    }
    return {"app": app} | {
        identity: {**common, "DATABRICKS_TOKEN": token, "PGUSER": user}
        for identity, (user, token) in people.items()
    }


def format_environment(environment: dict[str, str], style: str) -> str:
    """Return *environment* as lines for a shell or a dotenv file."""
    export = "export " if style == "shell" else ""
    return "\n".join(
        f"{export}{name}={shlex.quote(value)}" for name, value in environment.items()
    )


def _port_error(option: str, port: int, exc: OSError) -> LocalError:
    return LocalError(
        f"Port {port} of {HOSTADDR} cannot be used: {exc.strerror}. Give {option} "
        "another one, or omit it to use a free port."
    )

"""
The gateway: the server that clients connect to, as they connect to the service.

How it works. A `RelayConnection` buffers a client's bytes until the login is complete.
The gateway requires TLS, which starts after an SSLRequest or directly (libpq's
``sslnegotiation=direct``); the first byte tells which. The gateway finds the endpoint
by the host name in the TLS handshake, requests the password, checks the token, and logs
in to PostgreSQL over a Unix socket with trust authentication. It then pairs the two
connections, which forward bytes without parsing them. For a role with a native
password, the gateway does not request the password: it forwards the SCRAM login to
PostgreSQL, or to the pooler in front of it. Everything runs in the event loop's thread
and needs no lock.

The latency fault adds a `LatencyProxy` in front of the whole gateway, so that it also
delays the TLS handshake and the login.
"""

import asyncio
import contextlib
import functools
import ssl
import time
from typing import Any

from django_lakebase.local import login_errors
from django_lakebase.local.certs import ALPN_PROTOCOL, GatewayContexts
from django_lakebase.local.faults import FaultRegistry
from django_lakebase.local.login_errors import Dialect, ErrorResponse
from django_lakebase.local.postgres import sql
from django_lakebase.local.postgres.computes import Compute, Computes
from django_lakebase.local.state.model import EndpointRef, WorkspaceState
from django_lakebase.local.tokens import Signer

from . import wire
from .auth import LoginAuthenticator, LoginRejectedError
from .latency import LatencyProxy
from .pgbouncer import PgBouncers
from .relay import RelayConnection

# Seconds for a whole login; the limit of the service's front gateway.
LOGIN_TIMEOUT = 60.0
# Seconds to wait until connections are closed.
CLOSE_TIMEOUT = 5.0


class Counters:
    """
    The number of logins and rejections since the last reset.

    *direct_logins* counts the logins with direct TLS, which are also in *logins*.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Set all counters to 0."""
        self.logins = self.direct_logins = self.rejections = 0


class Gateway:
    """The server for all endpoints, on one port of the loopback interface."""

    def __init__(
        self,
        state: WorkspaceState,
        computes: Computes,
        signer: Signer,
        faults: FaultRegistry,
        contexts: GatewayContexts,
        *,
        pgbouncers: PgBouncers,
        dialect: Dialect = Dialect.LIKELY,
    ) -> None:
        self._computes, self._faults, self._contexts = computes, faults, contexts
        self._auth = LoginAuthenticator(state, signer, faults, dialect)
        self._pgbouncers = pgbouncers
        self._contexts.set_sni_callback(_store_server_name)
        self._listeners: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.counters = Counters()
        self.connections: set[RelayConnection] = set()

    async def start(self, port: int) -> int:
        """Listen on *port* (0: any) and return it. Raises OSError if it is in use."""
        loop = asyncio.get_running_loop()
        inner = await loop.create_server(self.new_connection, "127.0.0.1", 0)
        self._inner_port = inner.sockets[0].getsockname()[1]
        outer = await loop.create_server(self._accept, "127.0.0.1", port, backlog=512)
        self._listeners = [inner, outer]
        return int(outer.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Stop listening and reset all connections."""
        for listener in self._listeners:
            listener.close()
        for task in list(self._tasks):
            task.cancel()
        for connection in list(self.connections):
            connection.abort()

    # Called by the faults and the reaper.

    async def reset_connections(self, state: str) -> None:
        """Reset connections; *state* is all, idle or busy."""
        connections = [
            connection for connection in self.connections if _matches(state, connection)
        ]
        for connection in connections:
            connection.abort()
        await _wait_closed(connections)

    def freeze_connections(self, *, on: bool) -> None:
        """Stop forwarding on the open connections if *on*, else resume."""
        for connection in self.connections:
            connection.pause(on=on and connection.is_paired)

    async def suspend(self, ref: EndpointRef) -> None:
        """Suspend an endpoint and end its sessions, as scale to zero does."""
        self._auth.suspend(ref)
        await self.end_sessions(ref.folder)

    async def end_sessions(self, folder: str) -> None:
        """End all sessions of the server in *folder*, and wait for their end."""
        compute = self._computes.find(folder)
        if compute is None:
            return
        connections = [
            connection for connection in self.connections if connection.folder == folder
        ]
        await sql.end_sessions(compute.admin)
        await _wait_closed(
            [connection for connection in connections if connection.is_paired]
        )

    def _count_sessions(self) -> int:
        return sum(connection.is_paired for connection in self.connections)

    # The handling of one connection.

    def _accept(self) -> asyncio.BaseProtocol:
        if self._faults.get("latency") is None:
            return self.new_connection()
        return LatencyProxy(
            lambda: self._faults.get_number("latency", "ms") / 2000, self._inner_port
        )

    def new_connection(self) -> RelayConnection:
        """Return the asyncio protocol for a new connection."""
        return RelayConnection(self._on_connected, self.connections)

    def _on_connected(self, connection: RelayConnection) -> None:
        task = asyncio.get_running_loop().create_task(self._handle(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, connection: RelayConnection) -> None:
        try:
            async with asyncio.timeout(LOGIN_TIMEOUT):
                await self._log_in(connection)
        except LoginRejectedError as exc:
            self.counters.rejections += 1
            self._reject(connection, exc.rejection)
        except wire.ProtocolError as exc:
            self._reject(connection, ErrorResponse(str(exc), "08P01", "FATAL"))
        except TimeoutError:
            self._reject(connection, login_errors.handshake_timeout())
        except (OSError, EOFError):
            connection.abort()
        except Exception:
            # A bug in the emulator must not leave the client waiting.
            connection.abort()
            raise

    def _reject(self, connection: RelayConnection, rejection: ErrorResponse) -> None:
        connection.write(rejection.encode())
        connection.close()

    async def _log_in(self, connection: RelayConnection) -> None:
        body = await self._read_startup(connection)
        if body is None:
            return
        parameters = wire.parse_startup(body)
        user = parameters.get("user", "")
        if not user:
            raise LoginRejectedError(
                ErrorResponse("Parameter 'user' is missing in startup packet.")
            )
        ref = self._auth.find_endpoint(connection.server_name)
        await self._auth.authorize(ref, self._count_sessions())
        compute = self._computes.find(ref.folder)
        if compute is None:
            raise LoginRejectedError(ErrorResponse("Couldn't connect to compute node"))
        connection.folder = ref.folder
        role = await sql.fetch_login_role(compute.admin, user)
        ref.endpoint.active_at = time.time()
        if role is not None and role.is_native and ref.project.has_native_login:
            await self._relay(
                connection, body, await self._get_native_address(ref, compute)
            )
            return
        if ref.is_pooled:
            await self._reject_pooled(connection)
        connection.write(wire.PASSWORD_REQUEST)
        token = await self._read_password(connection)
        self._auth.check_token(
            user,
            token,
            role_exists=role is not None,
            identity_type="" if role is None else role.identity_type,
        )
        await self._relay(connection, body, compute.server.socket)

    async def _read_startup(self, connection: RelayConnection) -> bytes | None:
        """
        Return the body of the StartupMessage, or None if none follows.

        None follows a cancel request, and a TLS handshake without ALPN.
        """
        is_direct = await connection.peek(1) == wire.TLS_HANDSHAKE
        if is_direct and not await self._start_direct_tls(connection):
            connection.close()
            return None
        while True:
            body = await self._read_packet(connection)
            code = wire.request_code(body)
            if code == wire.CANCEL_REQUEST:
                await self._cancel(body)
                connection.close()
                return None
            if code == wire.GSS_REQUEST:
                connection.write(b"N")
            elif code == wire.SSL_REQUEST and not connection.is_secure:
                # Plaintext before the handshake may be injected:
                # https://www.postgresql.org/support/security/CVE-2021-23214/
                if connection.has_unread:
                    raise LoginRejectedError(login_errors.unencrypted_data())
                connection.write(b"S")
                await connection.start_tls(self._get_context())
            elif connection.is_secure:
                return body
            else:
                raise LoginRejectedError(login_errors.no_tls(code))

    async def _start_direct_tls(self, connection: RelayConnection) -> bool:
        """
        Start TLS without an SSLRequest; return whether a StartupMessage may follow.

        As in PostgreSQL 17, the client must offer its protocol with ALPN:
        https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL
        """
        mode = (self._faults.get("direct-tls") or {}).get("mode")
        if mode == "reject":
            raise wire.ProtocolError("invalid length of startup packet")
        if mode == "reset":
            raise ConnectionResetError
        if mode == "silent":
            await connection.closed.wait()
        await connection.start_tls(self._get_context(has_alpn=mode != "no-alpn"))
        connection.is_direct = True
        return mode is None and connection.alpn_protocol == ALPN_PROTOCOL

    def _get_context(self, *, has_alpn: bool = True) -> ssl.SSLContext:
        is_new_authority = self._faults.get("new-authority") is not None
        return self._contexts.get(is_new_authority=is_new_authority, has_alpn=has_alpn)

    async def _read_packet(self, connection: RelayConnection) -> bytes:
        length = wire.packet_length(await connection.read(wire.LENGTH_SIZE))
        return await connection.read(length)

    async def _read_password(self, connection: RelayConnection) -> str:
        if await connection.read(1) != b"p":
            raise wire.ProtocolError("expected password response")
        header = await connection.read(wire.LENGTH_SIZE)
        body = await connection.read(wire.packet_length(header, wire.MAX_PASSWORD))
        return body.rstrip(b"\0").decode(errors="replace")

    async def _reject_pooled(self, connection: RelayConnection) -> None:
        # The pooler accepts only native passwords, so it requests SCRAM first.
        connection.write(wire.SCRAM_REQUEST)
        await self._read_password(connection)
        raise LoginRejectedError(login_errors.token_at_pooled_host())

    async def _get_native_address(self, ref: EndpointRef, compute: Compute) -> Any:
        """Return the address for a SCRAM login: a TCP port or a socket path."""
        if ref.is_pooled:
            pooler = await self._pgbouncers.get_socket(compute)
            if pooler is not None:
                return pooler
        return compute.server.port

    async def _relay(
        self, connection: RelayConnection, startup: bytes, address: Any
    ) -> None:
        """Log in at *address*, a port or a socket, and start to forward bytes."""
        loop = asyncio.get_running_loop()
        new_connection = functools.partial(RelayConnection, lambda _: None, set())
        if isinstance(address, int):
            _, upstream = await loop.create_connection(
                new_connection, "127.0.0.1", address
            )
        else:
            _, upstream = await loop.create_unix_connection(
                new_connection, str(address)
            )
        upstream.write(wire.packet(startup))
        self.counters.logins += 1
        self.counters.direct_logins += connection.is_direct
        connection.pair_with(upstream)

    async def _cancel(self, body: bytes) -> None:
        # The request does not name a server. Servers ignore keys that they do not know.
        await asyncio.gather(
            *(
                _forward_cancel(body, compute)
                for compute in self._computes.list_running()
            )
        )


async def _forward_cancel(body: bytes, compute: Compute) -> None:
    with contextlib.suppress(OSError):
        socket = str(compute.server.socket)
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(wire.packet(body))
        # The server closes the connection after it has sent the signal. If the client
        # continued earlier, the signal could cancel its next statement.
        await reader.read()
        writer.close()


def _matches(state: str, connection: RelayConnection) -> bool:
    if state == "all":
        return True
    return connection.is_paired and connection.is_idle == (state == "idle")


async def _wait_closed(connections: list[RelayConnection]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT):
            for connection in connections:
                await connection.closed.wait()


def _store_server_name(ssl_object: Any, name: str | None, _: ssl.SSLContext) -> None:
    ssl_object.lakebase_server_name = name

"""
The gateway: where clients connect, as they do to the service's.

How it works. A client's bytes arrive in a `RelayConnection`, which buffers them until
the login is over. The gateway asks for TLS, finds the endpoint by the name in the TLS
handshake, asks for the password, checks the token once, and logs in to PostgreSQL over
the socket that trusts us. From then on the two sides are paired: bytes are moved as
they come, and nothing is parsed. A role with a native password is not asked by us: its
SCRAM login goes through to PostgreSQL, or to the pooler before it.

The latency fault is a `LatencyProxy` in front of the whole gateway, so that TLS and the
login are slow too.
"""

import asyncio
import contextlib
import functools
import ssl
import time
from typing import Any

from django_lakebase.local.faults.registry import FaultRegistry
from django_lakebase.local.postgres import sql
from django_lakebase.local.postgres.computes import Compute, Computes
from django_lakebase.local.state.model import EndpointRef, WorkspaceState
from django_lakebase.local.tokens import Signer

from . import messages, wire
from .auth import LoginAuthenticator, LoginRefusedError
from .latency import LatencyProxy
from .messages import Dialect
from .pgbouncer import PgBouncers
from .relay import RelayConnection
from .wire import ErrorResponse

# Seconds for a whole login, as the service's front gives.
LOGIN_TIMEOUT = 60.0
# Seconds for connections to close that were told to.
CLOSE_TIMEOUT = 5.0


class Counters:
    """What happened at the gateway since the last reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start from nothing."""
        self.logins = self.refusals = 0


class Gateway:
    """Serves all endpoints on one port of the loopback interface."""

    def __init__(
        self,
        state: WorkspaceState,
        computes: Computes,
        signer: Signer,
        faults: FaultRegistry,
        context: ssl.SSLContext,
        *,
        pgbouncers: PgBouncers,
        dialect: Dialect = Dialect.LIKELY,
    ) -> None:
        self._computes, self._faults, self._context = computes, faults, context
        self._auth = LoginAuthenticator(state, signer, faults, dialect)
        self._pgbouncers = pgbouncers
        self._context.sni_callback = _store_server_name
        self._listeners: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.counters = Counters()
        self.connections: set[RelayConnection] = set()

    async def start(self, port: int) -> int:
        """Listen on *port* (0: any) and return it; raises OSError where it is taken."""
        loop = asyncio.get_running_loop()
        inner = await loop.create_server(self.new_connection, "127.0.0.1", 0)
        self._inner_port = inner.sockets[0].getsockname()[1]
        outer = await loop.create_server(self._accept, "127.0.0.1", port, backlog=512)
        self._listeners = [inner, outer]
        return int(outer.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Stop listening and drop all connections."""
        for listener in self._listeners:
            listener.close()
        for task in list(self._tasks):
            task.cancel()
        for connection in list(self.connections):
            connection.abort()

    # What faults and the reaper do.

    async def reset_connections(self, which: str) -> None:
        """Reset connections: all, those that are idle or those at work."""
        connections = [
            connection for connection in self.connections if _matches(which, connection)
        ]
        for connection in connections:
            connection.abort()
        await _wait_closed(connections)

    def stall(self, *, on: bool) -> None:
        """Let no byte pass on the connections that are open, while *on*."""
        for connection in self.connections:
            connection.pause(on=on and connection.is_paired)

    async def suspend(self, ref: EndpointRef) -> None:
        """End the sessions of an endpoint as the service does when it sleeps."""
        self._auth.suspend(ref)
        await self.end_sessions(ref.folder)

    async def end_sessions(self, folder: str) -> None:
        """End all sessions of the server of *folder*, and see them closed."""
        compute = self._computes.find(folder)
        if compute is None:
            return
        ours = [
            connection for connection in self.connections if connection.folder == folder
        ]
        await sql.end_sessions(compute.admin)
        await _wait_closed([connection for connection in ours if connection.is_paired])

    def _count_sessions(self) -> int:
        return sum(connection.is_paired for connection in self.connections)

    # One connection.

    def _accept(self) -> asyncio.Protocol:
        if self._faults.get("latency") is None:
            return self.new_connection()
        return LatencyProxy(
            lambda: self._faults.get_number("latency", "ms") / 2000, self._inner_port
        )

    def new_connection(self) -> RelayConnection:
        """Return the protocol of a new connection."""
        return RelayConnection(self._connected, self.connections)

    def _connected(self, connection: RelayConnection) -> None:
        task = asyncio.get_running_loop().create_task(self._handle(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, connection: RelayConnection) -> None:
        try:
            async with asyncio.timeout(LOGIN_TIMEOUT):
                await self._log_in(connection)
        except LoginRefusedError as exc:
            self.counters.refusals += 1
            self._refuse(connection, exc.refusal)
        except wire.ProtocolError as exc:
            self._refuse(connection, ErrorResponse(str(exc), "08P01", "FATAL"))
        except TimeoutError:
            self._refuse(connection, messages.handshake_timeout())
        except (OSError, EOFError):
            connection.abort()
        except Exception:
            # A mistake of ours: nobody else would hang up.
            connection.abort()
            raise

    def _refuse(self, connection: RelayConnection, refusal: ErrorResponse) -> None:
        connection.write(refusal.encode())
        connection.close()

    async def _log_in(self, connection: RelayConnection) -> None:
        body = await self._read_startup(connection)
        if body is None:
            return
        parameters = wire.parse_startup(body)
        user = parameters.get("user", "")
        if not user:
            raise LoginRefusedError(
                ErrorResponse("Parameter 'user' is missing in startup packet.")
            )
        ref = self._auth.find_endpoint(connection.server_name)
        await self._auth.authorize(ref, self._count_sessions())
        compute = self._computes.find(ref.folder)
        if compute is None:
            raise LoginRefusedError(ErrorResponse("Couldn't connect to compute node"))
        connection.folder = ref.folder
        rows = await compute.admin.query(sql.login_query(user))
        comment, native = rows[0] if rows else (None, "f")
        identity_type = sql.parse_identity_type(comment)
        ref.endpoint.active_at = time.time()
        is_native = native == "t" and not identity_type
        if is_native and ref.project.has_native_login:
            await self._relay(
                connection, body, await self._get_native_address(ref, compute)
            )
            return
        if ref.is_pooled:
            await self._refuse_pooled(connection)
        connection.write(wire.PASSWORD_REQUEST)
        token = await self._read_password(connection)
        self._auth.check_token(
            user, token, exists=bool(rows), identity_type=identity_type
        )
        await self._relay(connection, body, compute.server.socket)

    async def _read_startup(self, connection: RelayConnection) -> bytes | None:
        """Return the body of the StartupMessage, inside TLS; None for a cancel."""
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
                if connection.has_unread:
                    raise LoginRefusedError(messages.unencrypted_data())
                connection.write(b"S")
                await connection.start_tls(self._context)
            elif connection.is_secure:
                return body
            else:
                raise LoginRefusedError(messages.no_tls(code))

    async def _read_packet(self, connection: RelayConnection) -> bytes:
        length = wire.packet_length(await connection.read(wire.LENGTH_SIZE))
        return await connection.read(length)

    async def _read_password(self, connection: RelayConnection) -> str:
        if await connection.read(1) != b"p":
            raise wire.ProtocolError("expected password response")
        head = await connection.read(wire.LENGTH_SIZE)
        body = await connection.read(wire.packet_length(head, wire.MAX_PASSWORD))
        return body.rstrip(b"\0").decode(errors="replace")

    async def _refuse_pooled(self, connection: RelayConnection) -> None:
        # The pooler knows native passwords only, so it asks for one of those.
        connection.write(wire.SCRAM_REQUEST)
        await self._read_password(connection)
        raise LoginRefusedError(messages.token_at_pooled_host())

    async def _get_native_address(self, ref: EndpointRef, compute: Compute) -> Any:
        """Return where a SCRAM login goes: a port of PostgreSQL's, or a socket."""
        if ref.is_pooled:
            pooler = await self._pgbouncers.get_socket(compute)
            if pooler is not None:
                return pooler
        return compute.server.port

    async def _relay(
        self, connection: RelayConnection, startup: bytes, address: Any
    ) -> None:
        """Log in at *address*, a port or a socket, and move bytes from now on."""
        loop = asyncio.get_running_loop()
        make = functools.partial(RelayConnection, lambda _: None, set())
        if isinstance(address, int):
            _, other = await loop.create_connection(make, "127.0.0.1", address)
        else:
            _, other = await loop.create_unix_connection(make, str(address))
        other.write(wire.packet(startup))
        self.counters.logins += 1
        connection.pair_with(other)

    async def _cancel(self, body: bytes) -> None:
        # Nothing says which server it is for; the others do not know its secret.
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
        # The server hangs up when the signal is sent. A client that were let go
        # before would see its next statement cancelled.
        await reader.read()
        writer.close()


def _matches(which: str, connection: RelayConnection) -> bool:
    if which == "all":
        return True
    return connection.is_paired and connection.is_idle == (which == "idle")


async def _wait_closed(connections: list[RelayConnection]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT):
            for connection in connections:
                await connection.closed.wait()


def _store_server_name(ssl_object: Any, name: str | None, _: ssl.SSLContext) -> None:
    ssl_object.lakebase_server_name = name

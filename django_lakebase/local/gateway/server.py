"""
The gateway: where clients connect, as they do to the service's.

Theory of operation. A client's bytes arrive in a `Link`, which buffers them until the
login is over. The gateway asks for TLS, finds the endpoint by the name in the TLS
handshake, asks for the password, checks the token once, and logs in to PostgreSQL over
the socket that trusts us. From then on the two sides are joined: bytes are moved as
they come, and nothing is parsed. A role with a native password is not asked by us: its
SCRAM login goes through to PostgreSQL, or to the pooler before it.

The latency fault is a `DelayLine` in front of the whole gateway, so that TLS and the
login are slow too.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable
from typing import Any

from django_lakebase.local.faults.registry import Faults
from django_lakebase.local.postgres import provision
from django_lakebase.local.postgres.computes import Compute, Fleet
from django_lakebase.local.state.model import Estate, Place
from django_lakebase.local.tokens import Signer

from . import messages, wire
from .auth import Admission, RefusedError
from .messages import Dialect
from .pgbouncer import Poolers
from .relay import DelayLine, Link
from .wire import Refusal

# Seconds for a whole login, as the service's front gives.
LOGIN_WITHIN = 60.0
# Seconds for connections to close that were told to.
CLOSES_WITHIN = 5.0


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
        estate: Estate,
        fleet: Fleet,
        signer: Signer,
        faults: Faults,
        context: ssl.SSLContext,
        *,
        poolers: Poolers,
        dialect: Dialect = Dialect.LIKELY,
    ) -> None:
        self._fleet, self._faults, self._context = fleet, faults, context
        self._admission = Admission(estate, signer, faults, dialect)
        self._poolers = poolers
        self._context.sni_callback = _remember_name
        self._listeners: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.counters = Counters()
        self.links: set[Link] = set()

    async def start(self, port: int) -> int:
        """Listen on *port* (0: any) and return it; raises OSError where it is taken."""
        loop = asyncio.get_running_loop()
        inner = await loop.create_server(self.new_link, "127.0.0.1", 0)
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
        for link in list(self.links):
            link.abort()

    # What faults and the idle watch do.

    async def cut(self, which: str) -> None:
        """Reset connections: all, those that are idle or those at work."""
        links = [link for link in self.links if _is_one_of(which, link)]
        for link in links:
            link.abort()
        await _all_over(links)

    def stall(self, *, on: bool) -> None:
        """Let no byte pass on the connections that are open, while *on*."""
        for link in self.links:
            link.hold(on=on and link.is_joined)

    async def suspend(self, place: Place) -> None:
        """End the sessions of an endpoint as the service does when it sleeps."""
        self._admission.put_to_sleep(place)
        await self.end_sessions(place.folder)

    async def end_sessions(self, folder: str) -> None:
        """End all sessions of the server of *folder*, and see them closed."""
        compute = self._fleet.find(folder)
        if compute is None:
            return
        ours = [link for link in self.links if link.folder == folder]
        await provision.end_sessions(compute.door)
        await _all_over([link for link in ours if link.is_joined])

    def _count_joined(self) -> int:
        return sum(link.is_joined for link in self.links)

    # One connection.

    def _accept(self) -> asyncio.Protocol:
        if self._faults.get("latency") is None:
            return self.new_link()
        return DelayLine(
            lambda: self._faults.number("latency", "ms") / 2000, self._inner_port
        )

    def new_link(self) -> Link:
        """Return the protocol of a new connection."""
        return Link(self._connected, self.links)

    def _connected(self, link: Link) -> None:
        task = asyncio.get_running_loop().create_task(self._guarded(link))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, link: Link) -> None:
        try:
            async with asyncio.timeout(LOGIN_WITHIN):
                await self._serve(link)
        except RefusedError as exc:
            self.counters.refusals += 1
            self._hang_up(link, exc.refusal)
        except wire.ProtocolError as exc:
            self._hang_up(link, Refusal(str(exc), "08P01", "FATAL"))
        except TimeoutError:
            self._hang_up(link, messages.too_slow())
        except (OSError, EOFError):
            link.abort()
        except Exception:
            # A mistake of ours: nobody else would hang up.
            link.abort()
            raise

    def _hang_up(self, link: Link, refusal: Refusal) -> None:
        link.write(refusal.encode())
        link.close()

    async def _serve(self, link: Link) -> None:
        body = await self._first_packet(link)
        if body is None:
            return
        parameters = wire.parse_startup(body)
        user = parameters.get("user", "")
        if not user:
            raise RefusedError(
                Refusal("Parameter 'user' is missing in startup packet.")
            )
        place = self._admission.place(link.server_name)
        await self._admission.admit(place, self._count_joined())
        compute = self._fleet.find(place.folder)
        if compute is None:
            raise RefusedError(Refusal("Couldn't connect to compute node"))
        link.folder = place.folder
        rows = await compute.door.query(provision.role_query(user))
        comment, native = rows[0] if rows else (None, "f")
        identity_type = provision.identity_type(comment)
        place.endpoint.active_at = time.time()
        is_native = native == "t" and not identity_type
        if is_native and place.project.has_native_login:
            await self._join(link, body, await self._native_way(place, compute))
            return
        if place.is_pooled:
            await self._refuse_pooled(link)
        link.write(wire.PASSWORD_REQUEST)
        token = await self._read_password(link)
        self._admission.check_token(
            user, token, exists=bool(rows), identity_type=identity_type
        )
        await self._join(link, body, compute.server.socket)

    async def _first_packet(self, link: Link) -> bytes | None:
        """Return the body of the StartupMessage, inside TLS; None for a cancel."""
        while True:
            body = await self._packet(link)
            code = wire.request_code(body)
            if code == wire.CANCEL_REQUEST:
                await self._cancel(body)
                link.close()
                return None
            if code == wire.GSS_REQUEST:
                link.write(b"N")
            elif code == wire.SSL_REQUEST and not link.is_secure:
                if link.has_unread:
                    raise RefusedError(messages.early_bytes())
                link.write(b"S")
                await link.start_tls(self._context)
            elif link.is_secure:
                return body
            else:
                raise RefusedError(messages.no_tls(code))

    async def _packet(self, link: Link) -> bytes:
        length = wire.packet_length(await link.read(wire.HEAD))
        return await link.read(length)

    async def _read_password(self, link: Link) -> str:
        if await link.read(1) != b"p":
            raise wire.ProtocolError("expected password response")
        head = await link.read(wire.HEAD)
        body = await link.read(wire.packet_length(head, wire.LONGEST_PASSWORD))
        return body.rstrip(b"\0").decode(errors="replace")

    async def _refuse_pooled(self, link: Link) -> None:
        # The pooler knows native passwords only, so it asks for one of those.
        link.write(wire.SCRAM_REQUEST)
        await self._read_password(link)
        raise RefusedError(messages.pooled())

    async def _native_way(self, place: Place, compute: Compute) -> Any:
        """Return where a SCRAM login goes: a port of PostgreSQL's, or a socket."""
        if place.is_pooled:
            pooler = await self._poolers.before(compute)
            if pooler is not None:
                return pooler
        return compute.server.port

    async def _join(self, link: Link, startup: bytes, way: Any) -> None:
        """Log in by *way*, a port or a socket, and move bytes from now on."""
        loop = asyncio.get_running_loop()
        make: Callable[[], Link] = lambda: Link(lambda _: None, set())  # noqa: E731
        if isinstance(way, int):
            _, other = await loop.create_connection(make, "127.0.0.1", way)
        else:
            _, other = await loop.create_unix_connection(make, str(way))
        other.write(wire.packet(startup))
        self.counters.logins += 1
        link.join(other)

    async def _cancel(self, body: bytes) -> None:
        # Nothing says which server it is for; the others do not know its secret.
        await asyncio.gather(
            *(_pass_on(body, compute) for compute in self._fleet.all())
        )


async def _pass_on(body: bytes, compute: Compute) -> None:
    with contextlib.suppress(OSError):
        socket = str(compute.server.socket)
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(wire.packet(body))
        # The server hangs up when the signal is sent. A client that were let go
        # before would see its next statement cancelled.
        await reader.read()
        writer.close()


def _is_one_of(which: str, link: Link) -> bool:
    if which == "all":
        return True
    return link.is_joined and link.is_idle == (which == "idle")


async def _all_over(links: list[Link]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSES_WITHIN):
            for link in links:
                await link.over.wait()


def _remember_name(connection: Any, name: str | None, _: ssl.SSLContext) -> None:
    connection.lakebase_server_name = name

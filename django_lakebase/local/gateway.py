"""
The gateway: where clients connect, as they do to the service's.

Theory of operation. A client's bytes arrive in a `Client`, which buffers them until
the login is over. `Gateway.serve` asks for TLS, finds the endpoint by the name in the
TLS handshake, asks for the password, checks the token once, and logs in to PostgreSQL
over the socket that trusts us. From then on the two sides are joined: bytes are moved
as they come, and nothing is parsed. A role with a native password is not asked by us:
its SCRAM login goes through to PostgreSQL.

The latency fault is a `DelayLine` in front of the whole gateway, so that TLS and the
login are slow too.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Any

from . import wire
from .backdoor import Backdoor
from .catalog import role_query, takes_tokens
from .estate import Estate
from .faults import Faults
from .link import DelayLine, Link
from .postgres import Server
from .tokens import Kind, Signer, TokenError
from .wire import Refusal

# Seconds for a whole login, as the service's front gives.
LOGIN_WITHIN = 60.0
# Seconds for connections to close that were told to.
CLOSES_WITHIN = 5.0


class RefusedError(Exception):
    """A login was refused; the argument is what the client is told."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


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
        signer: Signer,
        faults: Faults,
        server: Server,
        context: ssl.SSLContext,
    ) -> None:
        self._estate, self._signer, self._faults = estate, signer, faults
        self._server, self._context = server, context
        self._context.sni_callback = _remember_name
        self._door: Backdoor
        self._listeners: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.counters = Counters()
        self.links: set[Link] = set()
        self._wakes_at: float | None = None
        self.is_suspended = False

    async def start(self, port: int) -> int:
        """Listen on *port* (0: any) and return it; raises OSError where it is taken."""
        self._door = await Backdoor.open(self._server.socket)
        loop = asyncio.get_running_loop()
        inner = await loop.create_server(self._new_link, "127.0.0.1", 0)
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
        self._door.close()

    async def cut(self, which: str) -> None:
        """Reset connections, all or those that are idle, and see them closed."""
        links = [link for link in self.links if which == "all" or link.is_idle]
        for link in links:
            link.abort()
        await _all_over(links)

    async def suspend(self) -> None:
        """End all sessions as the service does when it scales to zero."""
        self.is_suspended, self._wakes_at = True, None
        links = [link for link in self.links if link.is_joined]
        await self._door.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        await _all_over(links)

    def _accept(self) -> asyncio.Protocol:
        if self._faults.get("latency") is None:
            return self._new_link()
        return DelayLine(
            lambda: self._faults.number("latency", "ms") / 2000, self._inner_port
        )

    def _new_link(self) -> Link:
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
            link.write(exc.refusal.encode())
            link.close()
        except wire.ProtocolError as exc:
            link.write(Refusal(str(exc), "08P01", "FATAL").encode())
            link.close()
        except TimeoutError:
            link.write(Refusal("Client handshake timeout.", "08006", "FATAL").encode())
            link.close()
        except (OSError, EOFError):
            link.abort()
        except Exception:
            # A mistake of ours: nobody else would hang up.
            link.abort()
            raise

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
        self._check_name(link)
        await self._wake()
        rows = await self._door.query(role_query(user))
        comment, native = rows[0] if rows else (None, "f")
        if rows and native == "t" and not takes_tokens(comment):
            await self._join(link, body, native=True)
            return
        link.write(wire.PASSWORD_REQUEST)
        token = await self._read_password(link)
        self._check_token(
            user, token, exists=bool(rows), labelled=takes_tokens(comment)
        )
        await self._join(link, body, native=False)

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
                link.write(b"S")
                await link.start_tls(self._context)
            elif link.is_secure:
                return body
            else:
                raise RefusedError(
                    Refusal(
                        f"Invalid protocol version. Protocol version: {code}",
                        "08P01",
                        "FATAL",
                        "Ensure that connection is using SSL. Try using "
                        "`sslmode=require` in the connection string.",
                    )
                )

    async def _packet(self, link: Link) -> bytes:
        length = wire.packet_length(await link.read(wire.HEAD))
        return await link.read(length)

    def _check_name(self, link: Link) -> None:
        name = link.server_name
        if not name:
            raise RefusedError(
                Refusal(
                    "Connection does not have SNI.",
                    "08006",
                    "FATAL",
                    "Please upgrade your client to support SNI.",
                )
            )
        if name != self._estate.host:
            text = "Control plane request failed: endpoint cannot be found"
            raise RefusedError(Refusal(text))

    async def _wake(self) -> None:
        """Wait, or refuse, while a suspended endpoint wakes."""
        settings = self._faults.get("suspend")
        if settings is None:
            self.is_suspended = False
            return
        now = asyncio.get_running_loop().time()
        if self._wakes_at is None:
            self._wakes_at = now + float(settings["wake"])
        if now < self._wakes_at and settings["refuse"]:
            starting = "the database system is starting up"
            raise RefusedError(Refusal(starting, "57P03", "FATAL"))
        await asyncio.sleep(max(0.0, self._wakes_at - now))
        self._faults.clear("suspend")
        self.is_suspended, self._wakes_at = False, None

    async def _read_password(self, link: Link) -> str:
        if await link.read(1) != b"p":
            raise wire.ProtocolError("expected password response")
        head = await link.read(wire.HEAD)
        body = await link.read(wire.packet_length(head, wire.LONGEST_PASSWORD))
        return body.rstrip(b"\0").decode(errors="replace")

    def _check_token(
        self, user: str, token: str, *, exists: bool, labelled: bool
    ) -> None:
        try:
            claims = self._signer.read(Kind.DATABASE, token)
        except TokenError as exc:
            raise RefusedError(Refusal(str(exc))) from None
        refusal = self._faults.refuse_login(user, claims.issued_at)
        if refusal is None and not exists:
            refusal = Refusal(f'role "{user}" does not exist', "28000", "FATAL")
        if refusal is None and (claims.subject != user or not labelled):
            refusal = Refusal(
                "An oauth token was supplied but no role security label was "
                f'configured in postgres for role "{user}"',
                "28P01",
                "FATAL",
            )
        if refusal is not None:
            raise RefusedError(refusal)

    async def _join(self, link: Link, startup: bytes, *, native: bool) -> None:
        """Log in to PostgreSQL, and move bytes from now on."""
        loop = asyncio.get_running_loop()
        make: Callable[[], Link] = lambda: Link(lambda _: None, set())  # noqa: E731
        if native:
            port = self._server.port
            _, other = await loop.create_connection(make, "127.0.0.1", port)
        else:
            socket = str(self._server.socket)
            _, other = await loop.create_unix_connection(make, socket)
        other.write(wire.packet(startup))
        self.counters.logins += 1
        link.join(other)

    async def _cancel(self, body: bytes) -> None:
        with contextlib.suppress(OSError):
            socket = str(self._server.socket)
            reader, writer = await asyncio.open_unix_connection(socket)
            writer.write(wire.packet(body))
            # The server hangs up when the signal is sent. A client that were let go
            # before would see its next statement cancelled.
            await reader.read()
            writer.close()


async def _all_over(links: list[Link]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSES_WITHIN):
            for link in links:
                await link.over.wait()


def _remember_name(connection: Any, name: str | None, _: ssl.SSLContext) -> None:
    connection.lakebase_server_name = name

"""
The admin connection: a superuser session over a Unix socket with trust authentication.

psycopg runs the statements in autocommit mode. Its errors become `SqlError` or
``ConnectionError``, so that no other module needs to know them.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, LiteralString, Self, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import AsyncRowFactory
from psycopg.sql import SQL, Composable, Composed

from .server import SUPERUSER, Server

Row = TypeVar("Row")
Result = TypeVar("Result")


class SqlError(Exception):
    """PostgreSQL rejected a statement of the emulator."""


class AdminConnection:
    """A superuser connection that runs one query at a time."""

    def __init__(self, server: Server, connection: AsyncConnection) -> None:
        self._server, self._connection = server, connection
        self._lock = asyncio.Lock()

    @classmethod
    async def open(cls, server: Server) -> Self:
        """Connect to *server*. Raises ConnectionError."""
        with _translate_errors():
            return cls(server, await _connect(server, "postgres"))

    async def fetch(
        self,
        row_factory: AsyncRowFactory[Row],
        query: LiteralString | Composed,
        params: tuple[Any, ...] = (),
    ) -> list[Row]:
        """Return the rows of *query*. Raises SqlError or ConnectionError."""

        async def fetch(connection: AsyncConnection) -> list[Row]:
            cursor = connection.cursor(row_factory=row_factory)
            await cursor.execute(query, params, prepare=True)
            return await cursor.fetchall()

        return await self._run(fetch)

    async def execute(
        self, template: LiteralString, /, *parts: Composable, **names: Composable
    ) -> None:
        """
        Run *template*, which may hold several statements.

        *parts* and *names* replace its placeholders, as in ``SQL.format()`` of psycopg.
        Raises as `fetch` does.
        """

        async def execute(connection: AsyncConnection) -> None:
            statements = SQL(template).format(*parts, **names)
            await connection.execute(statements, prepare=False)

        await self._run(execute)

    async def execute_in(
        self,
        database: str,
        template: LiteralString,
        /,
        *parts: Composable,
        **names: Composable,
    ) -> None:
        """Run *template* in another *database* of the same server, as `execute`."""
        with _translate_errors():
            async with await _connect(self._server, database) as connection:
                await connection.execute(SQL(template).format(*parts, **names))

    async def fetch_in(
        self, database: str, row_factory: AsyncRowFactory[Row], query: Composed
    ) -> list[Row]:
        """Return the rows of *query* in another *database*, as `fetch`."""
        with _translate_errors():
            async with await _connect(self._server, database) as connection:
                cursor = connection.cursor(row_factory=row_factory)
                await cursor.execute(query)
                return await cursor.fetchall()

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def _run(
        self, work: Callable[[AsyncConnection], Awaitable[Result]]
    ) -> Result:
        """
        Return the result of *work*, which gets the connection.

        Reconnects once if PostgreSQL has closed the connection, as it does when it
        restarts after the crash of a backend.
        """
        async with self._lock:
            with _translate_errors():
                try:
                    return await work(self._connection)
                except psycopg.OperationalError:
                    if not self._connection.closed:
                        raise
                    self._connection = await _connect(self._server, "postgres")
                    return await work(self._connection)


async def _connect(server: Server, database: str) -> AsyncConnection:
    return await AsyncConnection.connect(
        host=str(server.socket_folder),
        port=server.port,
        user=SUPERUSER,
        dbname=database,
        client_encoding="utf8",
        # A path that cannot exist, so that libpq does not read ~/.pgpass. The command
        # removes the variables that libpq reads.
        passfile=f"{os.devnull}/unused",
        autocommit=True,
    )


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as exc:
        is_lost = isinstance(exc, psycopg.OperationalError) and exc.sqlstate is None
        error = ConnectionError if is_lost else SqlError
        raise error(exc.diag.message_primary or str(exc)) from exc

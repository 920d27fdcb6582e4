"""
Our own way into PostgreSQL: as its superuser, over the socket that trusts us.

The simple query protocol is all that is needed, so the local Lakebase depends on no
driver.
"""

import asyncio
from pathlib import Path
from typing import Self

from django_lakebase.local.gateway import wire

from .server import SUPERUSER


class SqlError(Exception):
    """PostgreSQL refused a statement of ours."""


class Backdoor:
    """One connection; queries wait for each other."""

    def __init__(self, socket: Path, database: str) -> None:
        self.socket, self._database = socket, database
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None
        self._lock = asyncio.Lock()

    @classmethod
    async def open(cls, socket: Path, database: str = "postgres") -> Self:
        """Connect to *database*."""
        door = cls(socket, database)
        await door.query("")
        return door

    async def query(self, sql: str) -> list[list[str | None]]:
        """
        Run *sql*, which may be several statements; return the rows.

        A connection that PostgreSQL has closed (it restarts itself after the crash
        of a backend) is opened anew.
        """
        async with self._lock:
            if self._writer is None:
                return await self._ask(sql)
            try:
                return await self._ask(sql)
            except (OSError, EOFError):
                return await self._ask(sql)

    def close(self) -> None:
        """Close the connection."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _ask(self, sql: str) -> list[list[str | None]]:
        try:
            if self._writer is None:
                path = str(self.socket)
                self._reader, self._writer = await asyncio.open_unix_connection(path)
                hello = {"user": SUPERUSER, "database": self._database}
                self._writer.write(wire.startup(hello))
                await self._answer()
            self._writer.write(wire.query(sql))
            return await self._answer()
        except SqlError:
            raise
        except BaseException:
            # Also when cancelled: the rest of an answer must not meet the next query.
            self.close()
            raise

    async def _answer(self) -> list[list[str | None]]:
        rows, error = [], ""
        while True:
            kind = await self._reader.readexactly(1)
            length = int.from_bytes(await self._reader.readexactly(4), "big")
            body = await self._reader.readexactly(length - 4)
            if kind == b"D":
                rows.append(wire.parse_row(body))
            elif kind == b"E":
                error = wire.parse_error(body)
            elif kind == b"Z":
                if error:
                    raise SqlError(error)
                return rows


def quoted(text: str) -> str:
    """Return *text* as a literal."""
    return "'" + text.replace("'", "''") + "'"


def named(name: str) -> str:
    """Return *name* as an identifier."""
    return '"' + name.replace('"', '""') + '"'

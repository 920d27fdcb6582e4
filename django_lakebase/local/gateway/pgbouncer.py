"""
PgBouncer in front of a branch's server, for logins with native passwords.

PgBouncer runs in transaction mode, as the service's pooler does. If PgBouncer is not
installed, a pooled host connects directly to PostgreSQL.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from django_lakebase.local.errors import LocalError
from django_lakebase.local.postgres.computes import Compute
from django_lakebase.local.postgres.launcher import Launcher
from django_lakebase.local.postgres.server import SUPERUSER

PORT = 6432
START_TIMEOUT = 10.0
AUTH_QUERY = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1"


def find_pgbouncer() -> str | None:
    """Return the path of the pgbouncer program, or None if it is not installed."""
    return shutil.which(
        "pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
    )


class PgBouncers:
    """The PgBouncer processes: one for each server with logins at a pooled host."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._program = find_pgbouncer()
        self._running: dict[Path, subprocess.Popen[bytes]] = {}
        # By folder, to detect the new socket of a restored branch.
        self._server_sockets: dict[Path, Path] = {}
        self._lock = asyncio.Lock()

    async def get_socket(self, compute: Compute) -> Path | None:
        """
        Return the socket of the pooler of *compute*, and start the pooler if needed.

        Returns None if PgBouncer is not installed.
        """
        if self._program is None:
            return None
        folder = compute.server.folder / "pooler"
        path = folder / f".s.PGSQL.{PORT}"
        async with self._lock:
            process = self._running.get(folder)
            is_current = self._server_sockets.get(folder) == compute.server.socket
            # A killed process may not be reported as ended yet.
            if process and not (is_current and _accepts(path)):
                await _kill(process)
            if process is None or process.poll() is not None:
                self._server_sockets[folder] = compute.server.socket
                self._running[folder] = self._spawn(compute, folder)
                await self._wait_until_ready(path, folder)
        return path

    async def stop(self) -> None:
        """Stop all PgBouncer processes."""
        for process in self._running.values():
            await _kill(process)

    def _spawn(self, compute: Compute, folder: Path) -> subprocess.Popen[bytes]:
        launcher, server = self._launcher, compute.server
        launcher.make_directory(folder)
        settings = folder / "pgbouncer.ini"
        settings.write_text(
            "[databases]\n"
            f"* = host={server.socket_folder} port={server.port}\n"
            "[pgbouncer]\n"
            "listen_addr =\n"
            f"listen_port = {PORT}\n"
            f"unix_socket_dir = {folder}\n"
            "pool_mode = transaction\n"
            "max_client_conn = 10000\n"
            "auth_type = scram-sha-256\n"
            f"auth_user = {SUPERUSER}\n"
            f"auth_query = {AUTH_QUERY}\n"
            "ignore_startup_parameters = extra_float_digits, options\n"
        )
        launcher.chown(settings)
        return launcher.spawn([str(self._program), str(settings)], folder / "log")

    async def _wait_until_ready(self, path: Path, folder: Path) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not _accepts(path):
            if time.monotonic() > deadline or self._running[folder].poll() is not None:
                raise LocalError(
                    f"PgBouncer did not start:\n{_read_log(folder / 'log')}"
                )
            await asyncio.sleep(0.01)


async def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await asyncio.to_thread(process.wait)


def _accepts(path: Path) -> bool:
    """Return whether *path* accepts connections: the file appears slightly earlier."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def _read_log(log: Path) -> str:
    return log.read_text(errors="replace")

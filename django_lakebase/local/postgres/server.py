"""A PostgreSQL server that the emulator creates, starts and stops."""

import asyncio
import signal
import socket
import subprocess
import time
from pathlib import Path

from psycopg.conninfo import make_conninfo

from django_lakebase.local.errors import LocalError

from .launcher import Launcher, get_locale

SUPERUSER = "cloud_admin"
# Seconds.
START_TIMEOUT, STOP_TIMEOUT = 30.0, 10.0


class Server:
    """
    A PostgreSQL cluster in a folder of *launcher*'s directory.

    A server with a *primary* is its hot standby. The thread of the event loop starts
    all processes: the kernel ends a child when the thread that started it ends.
    """

    def __init__(
        self, launcher: Launcher, folder: str, primary: "Server | None" = None
    ) -> None:
        self.folder = launcher.directory / folder
        self.port = _find_free_port()
        self._launcher, self._primary = launcher, primary
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """The data directory of the cluster."""
        return self.folder / "data"

    @property
    def socket_folder(self) -> Path:
        """The folder of the Unix socket."""
        return self.folder / "socket"

    @property
    def socket(self) -> Path:
        """The Unix socket, on which the server requires no password."""
        return self.socket_folder / f".s.PGSQL.{self.port}"

    @property
    def _log(self) -> Path:
        return self.folder / "postgres.log"

    async def start(self) -> None:
        """Start the server, and create its cluster if needed. Raises LocalError."""
        launcher, data = self._launcher, self.data
        self._make_directories()
        self._log.unlink(missing_ok=True)
        launcher.check_access(self.socket)
        if not (data / "PG_VERSION").exists():
            await self._run_initdb()
        data_version = (data / "PG_VERSION").read_text().strip()
        version = launcher.binaries.version
        if data_version != str(version):
            raise LocalError(
                f"{launcher.directory} contains data of PostgreSQL {data_version}, but "
                f"version {version} was found. Choose the other installation with "
                "--postgres, or another directory with --data."
            )
        (data / "postmaster.pid").unlink(missing_ok=True)
        command: list[Path | str] = [launcher.program, "-D", data]
        command += self._options()
        self._process = launcher.spawn(command, self._log)
        await self._wait_until_ready()

    async def copy_from(self, source: "Server") -> None:
        """
        Copy the data of *source*, which is running. Raises LocalError.

        The copy has the transactions that were committed when the copying ended.
        """
        self._make_directories()
        await self._run_program(
            "pg_basebackup",
            f"--pgdata={self.data}",
            f"--host={source.socket_folder}",
            f"--port={source.port}",
            f"--username={SUPERUSER}",
            "--checkpoint=fast",
            "--wal-method=stream",
            "--no-manifest",
            "--no-password",
            "--no-sync",
        )
        if self._primary is not None:
            (self.data / "standby.signal").touch()

    def _make_directories(self) -> None:
        for path in (self.folder, self.data, self.socket_folder):
            self._launcher.make_directory(path)

    async def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        ready = "database system is ready to accept"
        while ready not in self._log.read_text(errors="replace"):
            process = self._process
            if process is None or process.poll() is not None:
                raise LocalError(f"PostgreSQL did not start:\n{_read_tail(self._log)}")
            if time.monotonic() > deadline:
                raise LocalError(
                    f"PostgreSQL was not ready after {START_TIMEOUT:g} s:\n"
                    f"{_read_tail(self._log)}"
                )
            await asyncio.sleep(0.01)

    async def stop(self, *, keeps_data: bool = False) -> None:
        """Stop the server; *keeps_data* makes it write its data to disk first."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        # Temporary data needs no checkpoint.
        is_persistent = keeps_data or self._launcher.is_persistent
        process.send_signal(signal.SIGINT if is_persistent else signal.SIGQUIT)
        try:
            await asyncio.to_thread(process.wait, STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)

    def _options(self) -> list[str]:
        settings = {
            "unix_socket_directories": str(self.socket_folder),
            "unix_socket_permissions": "0700",
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "max_connections": "600",
            "password_encryption": "scram-sha-256",
            "log_min_messages": "warning",
            "shared_buffers": "64MB",
            "lc_messages": "C",
            # Keep enough WAL for a standby that falls behind.
            "wal_keep_size": "64MB",
            # Each copy that runs needs two senders and a slot, each standby a sender.
            "max_wal_senders": "100",
            "max_replication_slots": "100",
        }
        if not self._launcher.is_persistent:
            settings |= dict.fromkeys(
                ("fsync", "synchronous_commit", "full_page_writes"), "off"
            )
        if self._primary is not None:
            settings["primary_conninfo"] = make_conninfo(
                host=str(self._primary.socket_folder),
                port=self._primary.port,
                user=SUPERUSER,
            )
        return [f"--{name}={value}" for name, value in settings.items()]

    async def _run_initdb(self) -> None:
        await self._run_program(
            "initdb",
            f"--pgdata={self.data}",
            f"--username={SUPERUSER}",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "--encoding=UTF8",
            f"--locale={get_locale()}",
            "--no-sync",
            "--no-instructions",
        )

    async def _run_program(self, name: str, *arguments: str) -> None:
        program = self._launcher.get_accessible_binaries() / name
        process = self._launcher.spawn([program, *arguments], self._log)
        try:
            await asyncio.to_thread(process.wait)
        finally:
            process.kill()
        if process.returncode != 0:
            raise LocalError(f"{name} failed:\n{_read_tail(self._log)}")


def _read_tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""
A real PostgreSQL server: made, started and stopped.

As root it runs as an existing unprivileged account, from a copy of its programs where
that account may not read them.
"""

import asyncio
import contextlib
import locale
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from django_lakebase.local import processes

from .binaries import Binaries, LocalError
from .extensions import trusting_program

SUPERUSER = "cloud_admin"
ACCOUNTS = ("nobody", "postgres", "daemon")
# Seconds.
STARTS_WITHIN, STOPS_WITHIN = 30.0, 10.0
# Bytes: the shortest limit of the systems that we run on is macOS's.
LONGEST_SOCKET = 103


def account() -> pwd.struct_passwd | None:
    """Return the account that the server runs as, None for our own."""
    if os.geteuid() != 0:
        _check_own_account()
        return None
    for name in ACCOUNTS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise LocalError(
        "PostgreSQL does not run as root, and none of the accounts "
        f"{', '.join(ACCOUNTS)} exists. Run this as an ordinary user."
    )


def _check_own_account() -> None:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise LocalError(
            f"The user id {os.geteuid()} has no account on this machine, and "
            "PostgreSQL needs one. Run this as a user that has, or add a line for it "
            "to /etc/passwd."
        ) from None


@dataclass(frozen=True, kw_only=True)
class Machine:
    """
    What all servers of one local Lakebase share.

    *lock* is held by each server too: the directory stays locked until the last of
    their processes has ended, also when we are killed.
    """

    binaries: Binaries
    directory: Path
    lock: int
    is_kept: bool
    account: pwd.struct_passwd | None

    def reachable_binaries(self) -> Path:
        """Return a folder of binaries that the servers' account may run."""
        folder = self.binaries.folder
        if self.account is None or _is_readable_to_all(folder):
            return folder
        copy = self.directory / "install"
        if not copy.exists():
            shutil.copytree(folder.parent, copy, symlinks=True)
        return copy / "bin"

    @cached_property
    def program(self) -> Path:
        """The server's program, which lets more extensions be made than it did."""
        return trusting_program(self.reachable_binaries(), self.directory / "program")

    def make_folder(self, path: Path) -> None:
        """Make a folder that belongs to the servers' account."""
        path.mkdir(mode=0o700, exist_ok=True, parents=True)
        self.give(path)

    def give(self, path: Path) -> None:
        """Make *path* belong to the servers' account."""
        if self.account is not None:
            os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def check_passage(self, socket: Path) -> None:
        """See that a server can get to its directory, and libpq to its *socket*."""
        folder = self.directory.resolve()
        closed = [p for p in folder.parents if not p.stat().st_mode & 0o001]
        if self.account is not None and closed:
            raise LocalError(
                f"As root, PostgreSQL runs as {self.account.pw_name}, which may not "
                f"pass through {closed[-1]}. Use a directory that all may pass "
                "through: TMPDIR=/tmp, or --data; or run this as an ordinary user."
            )
        if len(os.fsencode(socket)) > LONGEST_SOCKET:
            raise LocalError(
                f"{socket} is longer than the {LONGEST_SOCKET} bytes that a "
                "socket's name may have. Use a shorter TMPDIR or --data."
            )

    def spawn(self, command: list[Path | str], log: Path) -> subprocess.Popen[bytes]:
        """Start a program as the servers' account; it ends with us."""
        processes.load()  # Before the fork: little is safe after it.
        account = self.account
        with log.open("ab") as output:
            return subprocess.Popen(  # noqa: S603 - found by ourselves, no shell.
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=log.parent,
                env={"PATH": os.defpath, "LC_ALL": _locale()},
                start_new_session=True,
                pass_fds=(self.lock,),
                user=None if account is None else account.pw_uid,
                group=None if account is None else account.pw_gid,
                extra_groups=None if account is None else [],
                # SIGQUIT: the server and its children end at once.
                preexec_fn=lambda: processes.die_with_parent(signal.SIGQUIT),  # noqa: PLW1509
            )


class Server:
    """
    A PostgreSQL cluster in a folder of *machine*'s directory.

    One with a *primary* is its hot standby. Everything is started by the thread of
    the event loop: the kernel ends a child with the thread that started it.
    """

    def __init__(
        self, machine: Machine, folder: str, primary: "Server | None" = None
    ) -> None:
        self.folder = machine.directory / folder
        self.port = _free_port()
        self._machine, self._primary = machine, primary
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """The folder of the cluster's data."""
        return self.folder / "data"

    @property
    def socket_folder(self) -> Path:
        """The folder of the socket."""
        return self.folder / "socket"

    @property
    def socket(self) -> Path:
        """The socket on which the server trusts whoever reaches it."""
        return self.socket_folder / f".s.PGSQL.{self.port}"

    @property
    def _log(self) -> Path:
        return self.folder / "postgres.log"

    async def start(self) -> None:
        """Make the cluster where there is none, and start it; raises LocalError."""
        machine, data = self._machine, self.data
        for needed in (self.folder, data, self.socket_folder):
            machine.make_folder(needed)
        self._log.unlink(missing_ok=True)
        machine.check_passage(self.socket)
        binaries = machine.reachable_binaries()
        if not (data / "PG_VERSION").exists():
            await self._run_initdb(binaries)
        kept, version = (data / "PG_VERSION").read_text().strip(), machine.binaries
        if kept != str(version.version):
            raise LocalError(
                f"{machine.directory} holds data of PostgreSQL {kept}, and version "
                f"{version.version} was found. Use --postgres to choose the other, or "
                "another --data."
            )
        (data / "postmaster.pid").unlink(missing_ok=True)
        command: list[Path | str] = [machine.program, "-D", data]
        command += self._options()
        self._process = machine.spawn(command, self._log)
        await self._wait()

    async def _wait(self) -> None:
        deadline = time.monotonic() + STARTS_WITHIN
        ready = "database system is ready to accept"
        while ready not in self._log.read_text(errors="replace"):
            process = self._process
            if process is None or process.poll() is not None:
                raise LocalError(f"PostgreSQL did not start:\n{_tail(self._log)}")
            if time.monotonic() > deadline:
                raise LocalError(f"PostgreSQL is not ready yet:\n{_tail(self._log)}")
            await asyncio.sleep(0.01)

    async def stop(self, *, keeps: bool = False) -> None:
        """Stop the server; with *keeps* its data is written first."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        # Throw-away data needs no checkpoint.
        is_kept = keeps or self._machine.is_kept
        process.send_signal(signal.SIGINT if is_kept else signal.SIGQUIT)
        try:
            await asyncio.to_thread(process.wait, STOPS_WITHIN)
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
            # A standby that looks away for a moment finds what it missed.
            "wal_keep_size": "64MB",
        }
        if not self._machine.is_kept:
            settings |= dict.fromkeys(
                ("fsync", "synchronous_commit", "full_page_writes"), "off"
            )
        if self._primary is not None:
            settings["primary_conninfo"] = (
                f"host={self._primary.socket_folder} port={self._primary.port} "
                f"user={SUPERUSER}"
            )
        return [f"--{name}={value}" for name, value in settings.items()]

    async def _run_initdb(self, binaries: Path) -> None:
        process = self._machine.spawn(
            [
                binaries / "initdb",
                f"--pgdata={self.data}",
                f"--username={SUPERUSER}",
                "--auth-local=trust",
                "--auth-host=scram-sha-256",
                "--encoding=UTF8",
                f"--locale={_locale()}",
                "--no-sync",
                "--no-instructions",
            ],
            self._log,
        )
        try:
            await asyncio.to_thread(process.wait)
        finally:
            process.kill()
        if process.returncode != 0:
            raise LocalError(f"initdb made no cluster:\n{_tail(self._log)}")


def _is_readable_to_all(folder: Path) -> bool:
    wanted = 0o005
    resolved = folder.resolve()
    return all(
        part.stat().st_mode & wanted == wanted or part.stat().st_mode & 0o001
        for part in (resolved, *resolved.parents)
    )


def _locale() -> str:
    current = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    except locale.Error:
        return "C"
    finally:
        locale.setlocale(locale.LC_CTYPE, current)
    return "C.UTF-8"


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

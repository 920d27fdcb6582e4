"""
The start of server processes, with their shared account, directory and lock.

If the emulator runs as root, PostgreSQL runs as an existing unprivileged account. If
that account cannot read PostgreSQL's programs, it runs a copy of them.
"""

import contextlib
import locale
import os
import pwd
import shutil
import signal
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from django_lakebase.local import libc
from django_lakebase.local.errors import LocalError

from .binaries import Binaries
from .extensions import make_server_program

ACCOUNTS = ("nobody", "postgres", "daemon")
# Bytes: macOS has the lowest limit of the supported systems.
MAX_SOCKET_PATH = 103


def find_account() -> pwd.struct_passwd | None:
    """Return the account to run servers as, or None for the current account."""
    if os.geteuid() != 0:
        _check_own_account()
        return None
    for name in ACCOUNTS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise LocalError(
        "PostgreSQL cannot run as root, and none of the accounts "
        f"{', '.join(ACCOUNTS)} exists. Run the emulator as an ordinary user."
    )


def _check_own_account() -> None:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise LocalError(
            f"The user id {os.geteuid()} has no account on this machine, and "
            "PostgreSQL requires one. Run the emulator as a user with an account, or "
            "add an entry for this user id to /etc/passwd."
        ) from None


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """
    The process launcher of one emulator, with the settings that its servers share.

    *lock* is a file descriptor. Each process inherits it, so the directory stays locked
    until the last process has ended, even if the emulator is killed.
    """

    binaries: Binaries
    directory: Path
    lock: int
    is_persistent: bool
    account: pwd.struct_passwd | None

    def get_accessible_binaries(self) -> Path:
        """Return a folder of binaries that the servers' account can run."""
        folder = self.binaries.folder
        if self.account is None or _is_world_readable(folder):
            return folder
        copy = self.directory / "install"
        if not copy.exists():
            shutil.copytree(folder.parent, copy, symlinks=True)
        return copy / "bin"

    @cached_property
    def program(self) -> Path:
        """The server's program, which trusts the extensions that the service trusts."""
        return make_server_program(
            self.get_accessible_binaries(), self.directory / "program"
        )

    def make_directory(self, path: Path) -> None:
        """Create a folder that the servers' account owns."""
        path.mkdir(mode=0o700, exist_ok=True, parents=True)
        self.chown(path)

    def chown(self, path: Path) -> None:
        """Make the servers' account the owner of *path*."""
        if self.account is not None:
            os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def check_access(self, socket: Path) -> None:
        """
        Check that a server can access its directory, and that *socket* is short enough.

        Raises LocalError.
        """
        folder = self.directory.resolve()
        closed = [p for p in folder.parents if not p.stat().st_mode & 0o001]
        if self.account is not None and closed:
            raise LocalError(
                "The emulator runs as root, so PostgreSQL runs as the account "
                f"{self.account.pw_name}, which cannot access {closed[-1]}. Use a "
                "directory that all accounts can access (with TMPDIR=/tmp or --data), "
                "or run the emulator as an ordinary user."
            )
        if len(os.fsencode(socket)) > MAX_SOCKET_PATH:
            raise LocalError(
                f"The path of the socket {socket} is longer than the limit of "
                f"{MAX_SOCKET_PATH} bytes. Use a shorter TMPDIR or --data."
            )

    def spawn(self, command: list[Path | str], log: Path) -> subprocess.Popen[bytes]:
        """Start *command* as the servers' account; it ends when the emulator ends."""
        libc.load_libc()  # Few calls are safe after the fork.
        account = self.account
        with log.open("ab") as output:
            return subprocess.Popen(  # noqa: S603 - our programs, no shell.
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=log.parent,
                env={"PATH": os.defpath, "LC_ALL": get_locale()},
                start_new_session=True,
                pass_fds=(self.lock,),
                user=None if account is None else account.pw_uid,
                group=None if account is None else account.pw_gid,
                extra_groups=None if account is None else [],
                # On SIGQUIT, the server and its children exit immediately.
                preexec_fn=lambda: libc.die_with_parent(signal.SIGQUIT),  # noqa: PLW1509
            )


def _is_world_readable(folder: Path) -> bool:
    read_and_enter = 0o005
    resolved = folder.resolve()
    return all(
        part.stat().st_mode & read_and_enter == read_and_enter
        or part.stat().st_mode & 0o001
        for part in (resolved, *resolved.parents)
    )


def get_locale() -> str:
    """Return the locale for clusters: C.UTF-8 if the system has it, else C."""
    current = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    except locale.Error:
        return "C"
    finally:
        locale.setlocale(locale.LC_CTYPE, current)
    return "C.UTF-8"

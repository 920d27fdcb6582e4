"""
The account, directory and lock with which the servers' processes are started.

As root PostgreSQL runs as an existing unprivileged account, from a copy of its programs
where that account may not read them.
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

from django_lakebase.local import processes
from django_lakebase.local.errors import LocalError

from .binaries import Binaries
from .extensions import make_server_program

ACCOUNTS = ("nobody", "postgres", "daemon")
# Bytes: the shortest limit of the systems that we run on is macOS's.
MAX_SOCKET_PATH = 103


def find_account() -> pwd.struct_passwd | None:
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
class Launcher:
    """
    What all servers of one emulator share, and how their processes are started.

    *lock* is held by each server too: the directory stays locked until the last of
    their processes has ended, also when we are killed.
    """

    binaries: Binaries
    directory: Path
    lock: int
    is_persistent: bool
    account: pwd.struct_passwd | None

    def get_accessible_binaries(self) -> Path:
        """Return a folder of binaries that the servers' account may run."""
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
        """Make a folder that belongs to the servers' account."""
        path.mkdir(mode=0o700, exist_ok=True, parents=True)
        self.chown(path)

    def chown(self, path: Path) -> None:
        """Make *path* belong to the servers' account."""
        if self.account is not None:
            os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def check_access(self, socket: Path) -> None:
        """See that a server can get to its directory, and libpq to its *socket*."""
        folder = self.directory.resolve()
        closed = [p for p in folder.parents if not p.stat().st_mode & 0o001]
        if self.account is not None and closed:
            raise LocalError(
                f"As root, PostgreSQL runs as {self.account.pw_name}, which may not "
                f"pass through {closed[-1]}. Use a directory that all may pass "
                "through: TMPDIR=/tmp, or --data; or run this as an ordinary user."
            )
        if len(os.fsencode(socket)) > MAX_SOCKET_PATH:
            raise LocalError(
                f"{socket} is longer than the {MAX_SOCKET_PATH} bytes that a "
                "socket's name may have. Use a shorter TMPDIR or --data."
            )

    def spawn(self, command: list[Path | str], log: Path) -> subprocess.Popen[bytes]:
        """Start a program as the servers' account; it ends with us."""
        processes.load_libc()  # Before the fork: little is safe after it.
        account = self.account
        with log.open("ab") as output:
            return subprocess.Popen(  # noqa: S603 - found by ourselves, no shell.
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
                # SIGQUIT: the server and its children end at once.
                preexec_fn=lambda: processes.die_with_parent(signal.SIGQUIT),  # noqa: PLW1509
            )


def _is_world_readable(folder: Path) -> bool:
    wanted = 0o005
    resolved = folder.resolve()
    return all(
        part.stat().st_mode & wanted == wanted or part.stat().st_mode & 0o001
        for part in (resolved, *resolved.parents)
    )


def get_locale() -> str:
    """Return the locale of clusters: C.UTF-8 where the system has it."""
    current = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    except locale.Error:
        return "C"
    finally:
        locale.setlocale(locale.LC_CTYPE, current)
    return "C.UTF-8"

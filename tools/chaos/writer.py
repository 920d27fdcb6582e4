"""
A writer process: threads that insert rows continuously, like a web worker's requests.

Its main thread receives commands that cause faults: drop the credential, fork, kill the
thread that fetches, exhaust the pool, fail to resolve names.
"""

import ctypes
import faulthandler
import logging
import os
import re
import threading
import time
import traceback
import uuid
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from .dns_faults import Resolver
from .hang_detector import (
    COMMITTING,
    CONNECTING,
    MARGIN,
    WORKING,
    HangDetector,
    ThreadState,
)
from .history import HistoryWriter, Operation, Outcome

if TYPE_CHECKING:
    from django_lakebase.auth.credentials import CredentialCache

# Tokens and client secrets.
SECRET = re.compile(r"eyJ[\w-]{10,}\.|\b(dose|dapi)[0-9a-f]{8,}")
# The kinds of operations, and the rows that each inserts.
PARTS = {"autocommit": 1, "atomic": 2, "nested": 2}
# How many exceptions of a chain are recorded.
MAX_CHAIN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """The parameters of a writer process; durations are seconds."""

    number: int
    threads: int
    folder: str
    budget: float
    pause: float
    seed: int
    environment: dict[str, str]
    pause_after_error: float = 0.1


def main(spec: Spec, progress: Any, commands: "Connection[Any, Any]") -> None:
    """
    Write until the command "stop" arrives.

    *progress* is a shared array with the time of each thread's last success.
    """
    folder = Path(spec.folder)
    errors = (folder / f"{spec.number}.stderr").open("a")
    os.dup2(errors.fileno(), 2)
    faulthandler.enable(errors)
    _log_to(folder / f"{spec.number}.log")
    # Forking a process that has threads is one of the faults.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded")
    resolver = Resolver()
    resolver.install()
    os.environ.update(spec.environment)
    import django

    django.setup()
    from django_lakebase.auth.sdk import import_sdk

    # Like a server that loads its application before it serves requests.
    import_sdk()
    writers = WriterThreads(spec, progress, resolver)
    writers.start()
    commands.send("ready")
    while (command := commands.recv()) != "stop":
        writers.execute(command)
        commands.send("done")
    commands.send(writers.stop())


def _log_to(path: Path) -> None:
    # INFO for the SDK, which documents that it logs tokens at DEBUG.
    logging.basicConfig(
        filename=path, level=logging.INFO, format="%(name)s %(message)s"
    )
    for name in ("django_lakebase", "psycopg", "psycopg.pool"):
        logging.getLogger(name).setLevel(logging.DEBUG)


class WriterThreads:
    """The threads of one process."""

    def __init__(self, spec: Spec, progress: Any, resolver: Resolver) -> None:
        self._spec, self._progress, self._resolver = spec, progress, resolver
        self._history = HistoryWriter(Path(spec.folder) / f"{spec.number}.history")
        self._states = [ThreadState(f"{spec.number}.{i}") for i in range(spec.threads)]
        self._current = threading.local()
        self._is_stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._detector = HangDetector(self._states, spec.budget, self._report_hang)
        self._commands: dict[str, Callable[[str], None]] = {
            "drop-credential": self._drop_credential,
            "exhaust-pool": self._exhaust_pool,
            "fail-dns": self._resolver.set_failure,
            "fork": self._fork,
            "kill-fetch": self._kill_fetch,
        }

    def start(self) -> None:
        """Start the threads and the hang detector."""
        from django.db.backends.signals import connection_created

        connection_created.connect(self._on_connected, weak=False)
        self._threads = [
            threading.Thread(target=self._write, args=(i,), name=f"writer-{i}")
            for i in range(self._spec.threads)
        ]
        self._detector.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> int:
        """Stop the threads; return how many did not end in time."""
        self._is_stopping.set()
        deadline = time.monotonic() + self._spec.budget + MARGIN + 5
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        alive = [thread for thread in self._threads if thread.is_alive()]
        if alive:
            faulthandler.dump_traceback()
        return len(alive)

    def execute(self, command: str) -> None:
        """Execute *command*: a name, and for some commands an argument."""
        name, _, argument = command.partition(" ")
        self._commands[name](argument)

    def _report_hang(self, **values: Any) -> None:
        self._history.write("hang", **values)

    # Writing.

    def _write(self, index: int) -> None:
        from django.db import connections

        random = Random(f"{self._spec.seed}/{self._spec.number}/{index}")  # noqa: S311
        aliases = sorted(connections)
        alias = aliases[index % len(aliases)]
        writer = self._spec.number * self._spec.threads + index
        while not self._is_stopping.is_set():
            kind = random.choice(list(PARTS))
            operation = self.run_operation(alias, kind, writer, self._states[index])
            if operation.outcome == Outcome.ACKNOWLEDGED:
                self._progress[writer] = operation.ended
                self._is_stopping.wait(self._spec.pause * random.random() * 2)
            else:
                self._is_stopping.wait(self._spec.pause_after_error)
        connections.close_all()

    def run_operation(
        self, alias: str, kind: str, writer: int, state: ThreadState
    ) -> Operation:
        """Run one operation like a request, record it, and return it."""
        from django.db import close_old_connections, connections

        operation = Operation(
            key=uuid.uuid4().hex,
            writer=writer,
            alias=alias,
            kind=kind,
            parts=PARTS[kind],
            started=time.monotonic(),
        )
        self._current.state, self._current.operation = state, operation
        state.thread = threading.current_thread()
        state.machine_delay = self._detector.machine_delay
        state.enter(CONNECTING, operation.key)
        self._history.write("operation", **asdict(operation))
        try:
            close_old_connections()
            if connections[alias].connection is not None:
                state.enter(WORKING)
            _INSERTS[kind](alias, operation, state)
            operation.outcome = Outcome.ACKNOWLEDGED
        except Exception as exc:  # noqa: BLE001 - the checker gets every kind of error.
            operation.phase = state.phase
            operation.outcome = _outcome_after_error(operation)
            operation.error = _describe(exc)
        finally:
            operation.ended = time.monotonic()
            operation.machine_delay = self._detector.machine_delay - state.machine_delay
            if state.phase == CONNECTING:
                operation.connect_seconds = operation.ended - operation.started
            state.enter("")
        close_old_connections()
        self._history.write("operation", **asdict(operation))
        return operation

    def _on_connected(self, **_: object) -> None:
        # Threads that exhaust the pool connect, too, and have no operation.
        state = getattr(self._current, "state", None)
        if state is not None and state.phase == CONNECTING:
            operation = self._current.operation
            operation.connect_seconds = time.monotonic() - operation.started
            state.enter(WORKING)

    # Commands.

    @property
    def _credentials(self) -> "CredentialCache":
        from django.db import connections

        from django_lakebase.auth.registry import access_to

        connection: Any = connections["default"]
        return access_to(connection.get_target()).credentials

    def _drop_credential(self, _: str = "") -> None:
        credentials = self._credentials
        current = credentials._current
        if current is not None:
            credentials.drop(current)

    def _start_fetch(self, *, drop_credential: bool) -> None:
        if drop_credential:
            self._drop_credential()
        # Not refresh_soon(): it may do nothing for a while after a failure.
        self._credentials._refresh.start()

    def _fork(self, argument: str) -> None:
        self._start_fetch(drop_credential=argument == "drop-credential")
        limit = self._spec.budget + MARGIN
        pid = os.fork()
        if not pid:
            try:
                faulthandler.dump_traceback_later(limit + 5, exit=True)
                self.run_operation("default", "atomic", -1, ThreadState("child"))
            finally:
                os._exit(0)
        threading.Thread(target=self._await_child, args=(pid,), daemon=True).start()

    def _await_child(self, pid: int) -> None:
        started = time.monotonic()
        _, status = os.waitpid(pid, 0)
        if status:
            self._report_hang(
                writer="child",
                key=f"status {status}",
                phase="forked",
                seconds=time.monotonic() - started,
                stacks={},
            )

    def _kill_fetch(self, _: str) -> None:
        self._start_fetch(drop_credential=True)
        for thread in threading.enumerate():
            if thread.name == "lakebase-workspace" and thread.ident is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
                )

    def _exhaust_pool(self, seconds: str) -> None:
        from django.db import connections

        from .settings import POOL_SIZE

        def hold_connection() -> None:
            connection = connections["default"]
            try:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_sleep(%s)", [float(seconds)])
            finally:
                connection.close()

        for _ in range(POOL_SIZE):
            threading.Thread(target=hold_connection, daemon=True).start()


def _insert_in_autocommit(alias: str, operation: Operation, state: ThreadState) -> None:
    _insert(alias, operation, 0)


def _insert_atomically(alias: str, operation: Operation, state: ThreadState) -> None:
    from django.db import transaction

    with transaction.atomic(using=alias):
        for part in range(operation.parts):
            _insert(alias, operation, part)
        state.enter(COMMITTING)


def _insert_with_savepoint(
    alias: str, operation: Operation, state: ThreadState
) -> None:
    from django.db import transaction

    with transaction.atomic(using=alias):
        _insert(alias, operation, 0)
        with transaction.atomic(using=alias):
            _insert(alias, operation, 1)
        state.enter(COMMITTING)


def _insert(alias: str, operation: Operation, part: int) -> None:
    from .models import Entry

    Entry.objects.using(alias).create(key=operation.key, part=part)


_INSERTS: dict[str, Callable[[str, Operation, ThreadState], None]] = {
    "autocommit": _insert_in_autocommit,
    "atomic": _insert_atomically,
    "nested": _insert_with_savepoint,
}


def _outcome_after_error(operation: Operation) -> Outcome:
    """Return what is certain after an error in the operation's phase."""
    is_rolled_back = operation.phase == WORKING and operation.kind != "autocommit"
    has_failed = operation.phase == CONNECTING or is_rolled_back
    return Outcome.FAILED if has_failed else Outcome.UNKNOWN


def _describe(exc: BaseException) -> dict[str, Any]:
    from django.db import Error

    chain: list[str] = []
    link: BaseException | None = exc
    while link is not None and len(chain) < MAX_CHAIN:
        chain.append(f"{type(link).__module__}.{type(link).__name__}")
        link = link.__cause__ or link.__context__
    shown = "".join(traceback.format_exception(exc))
    return {
        "text": str(exc)[:600],
        "chain": chain,
        "id": getattr(exc, "failure_id", ""),
        "is_django": isinstance(exc, Error),
        "shows_secret": bool(SECRET.search(shown)),
        "traceback": "" if isinstance(exc, Error) else SECRET.sub("***", shown),
    }

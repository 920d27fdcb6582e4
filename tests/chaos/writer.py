"""
A process of writers: threads that do what a web worker does, over and over.

Its main thread hears orders: forget a credential, fork, kill a thread that fetches,
use up the pool, resolve no names.
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
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from .journal import Journal, Outcome, Unit
from .resolver import Resolver
from .watchdog import COMMITTING, CONNECTING, MARGIN, WORKING, Slot, Watchdog

# How a token and a client secret look, wherever they are printed.
SECRET = re.compile(r"eyJ[\w-]{10,}\.|\b(dose|dapi)[0-9a-f]{8,}")
PARTS = {"autocommit": 1, "atomic": 2, "nested": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a process of writers is told when it starts."""

    number: int
    threads: int
    folder: str
    budget: float
    pause: float
    seed: int
    environment: dict[str, str]
    wait_after_error: float = 0.1


def main(spec, progress, orders):
    """Write until told to stop; *progress* holds each thread's last success."""
    folder = Path(spec.folder)
    errors = (folder / f"{spec.number}.stderr").open("a")
    os.dup2(errors.fileno(), 2)
    faulthandler.enable(errors)
    _log_to(folder / f"{spec.number}.log")
    # A fork in a process with threads is what one of the troubles is about.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded")
    resolver = Resolver()
    resolver.install()
    os.environ.update(spec.environment)
    import django

    django.setup()
    from django_lakebase.workspace import import_sdk

    # As a server does that loads its application before it serves.
    import_sdk()
    crew = Crew(spec, progress, resolver)
    crew.start()
    orders.send("ready")
    while (order := orders.recv()) != "stop":
        crew.hear(order)
        orders.send("heard")
    orders.send(crew.stop())


def _log_to(path):
    # The SDK prints tokens at DEBUG, as its own documentation says.
    logging.basicConfig(
        filename=path, level=logging.INFO, format="%(name)s %(message)s"
    )
    for name in ("django_lakebase", "psycopg", "psycopg.pool"):
        logging.getLogger(name).setLevel(logging.DEBUG)


class Crew:
    """The threads of one process."""

    def __init__(self, spec, progress, resolver):
        self._spec, self._progress, self._resolver = spec, progress, resolver
        self._journal = Journal(Path(spec.folder) / f"{spec.number}.journal")
        self._slots = [Slot(f"{spec.number}.{i}") for i in range(spec.threads)]
        self._mine = threading.local()
        self._over = threading.Event()
        self._threads = []
        self._watchdog = Watchdog(self._slots, spec.budget, self._report_hang)

    def start(self):
        """Start the threads, and what watches them."""
        from django.db.backends.signals import connection_created

        connection_created.connect(self._connected, weak=False)
        self._threads = [
            threading.Thread(target=self._write_on, args=(i,), name=f"writer-{i}")
            for i in range(self._spec.threads)
        ]
        self._watchdog.start()
        for thread in self._threads:
            thread.start()

    def stop(self):
        """End; return how many threads did not."""
        self._over.set()
        deadline = time.monotonic() + self._spec.budget + MARGIN + 5
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        late = [thread for thread in self._threads if thread.is_alive()]
        if late:
            faulthandler.dump_traceback()
        return len(late)

    def _report_hang(self, **facts):
        self._journal.write("hang", **facts)

    # Writing.

    def _write_on(self, index):
        from django.db import connections

        chance = Random(f"{self._spec.seed}/{self._spec.number}/{index}")  # noqa: S311
        aliases = sorted(connections)
        alias = aliases[index % len(aliases)]
        position = self._spec.number * self._spec.threads + index
        while not self._over.is_set():
            kind = chance.choice(list(PARTS))
            unit = self.do(alias, kind, position, self._slots[index])
            if unit.outcome == Outcome.ACKNOWLEDGED:
                self._progress[position] = unit.ended
                self._over.wait(self._spec.pause * chance.random() * 2)
            else:
                self._over.wait(self._spec.wait_after_error)
        connections.close_all()

    def do(self, alias, kind, writer, slot):
        """Do one unit as a request would; return what became of it."""
        from django.db import close_old_connections, connections

        unit = Unit(
            key=uuid.uuid4().hex,
            writer=writer,
            alias=alias,
            kind=kind,
            parts=PARTS[kind],
            began=time.monotonic(),
        )
        self._mine.slot, self._mine.unit = slot, unit
        slot.thread = threading.current_thread()
        slot.late = self._watchdog.late
        slot.enter(CONNECTING, unit.key)
        self._journal.write("unit", **asdict(unit))
        try:
            close_old_connections()
            if connections[alias].connection is not None:
                slot.enter(WORKING)
            _WORK[kind](alias, unit, slot)
            unit.outcome = Outcome.ACKNOWLEDGED
        except Exception as exc:  # noqa: BLE001 - whatever reaches user code is judged.
            unit.phase = slot.phase
            unit.outcome = _known(unit, slot.phase)
            unit.error = _described(exc)
        finally:
            unit.ended = time.monotonic()
            unit.late = self._watchdog.late - slot.late
            if slot.phase == CONNECTING:
                unit.connecting = unit.ended - unit.began
            slot.enter("")
        close_old_connections()
        self._journal.write("unit", **asdict(unit))
        return unit

    def _connected(self, **_):
        slot, unit = getattr(self._mine, "slot", None), self._mine.__dict__.get("unit")
        if slot is not None and slot.phase == CONNECTING:
            unit.connecting = time.monotonic() - unit.began
            slot.enter(WORKING)

    # Orders.

    def hear(self, order):
        """Carry *order* out."""
        name, _, how = order.partition(" ")
        getattr(self, f"_{name}")(how)

    @property
    def _credentials(self):
        from django.db import connections
        from django_lakebase.workspace import access_to

        return access_to(connections["default"].get_target()).credentials

    def _forget(self, _):
        cache = self._credentials
        cache.drop(cache._current)

    def _resolve(self, how):
        self._resolver.fail(how)

    def _start_fetch(self, how):
        if how != "warm":
            self._forget("")
        self._credentials._flight.start()

    def _fork(self, how):
        self._start_fetch(how)
        limit = self._spec.budget + MARGIN
        pid = os.fork()
        if not pid:
            try:
                faulthandler.dump_traceback_later(limit + 5, exit=True)
                self.do("default", "atomic", -1, Slot("child"))
            finally:
                os._exit(0)
        threading.Thread(target=self._await, args=(pid,), daemon=True).start()

    def _await(self, pid):
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

    def _kill(self, _):
        self._start_fetch("cold")
        for thread in threading.enumerate():
            if thread.name == "lakebase-workspace":
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
                )

    def _hog(self, how):
        from django.db import connections

        from .settings import POOL_SIZE

        def hold():
            connection = connections["default"]
            try:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_sleep(%s)", [float(how)])
            finally:
                connection.close()

        for _ in range(POOL_SIZE):
            threading.Thread(target=hold, daemon=True).start()


def _autocommit(alias, unit, slot):
    _create(alias, unit, 0)


def _atomic(alias, unit, slot):
    from django.db import transaction

    with transaction.atomic(using=alias):
        for part in range(unit.parts):
            _create(alias, unit, part)
        slot.enter(COMMITTING)


def _nested(alias, unit, slot):
    from django.db import transaction

    with transaction.atomic(using=alias):
        _create(alias, unit, 0)
        with transaction.atomic(using=alias):
            _create(alias, unit, 1)
        slot.enter(COMMITTING)


def _create(alias, unit, part):
    from .models import Entry

    Entry.objects.using(alias).create(key=unit.key, part=part)


_WORK = {"autocommit": _autocommit, "atomic": _atomic, "nested": _nested}


def _known(unit, phase):
    """Return what a writer may believe after an error in *phase*."""
    is_certain = phase == CONNECTING or (phase == WORKING and unit.kind != "autocommit")
    return Outcome.REFUSED if is_certain else Outcome.UNKNOWN


def _described(exc):
    from django.db import Error

    chain, link = [], exc
    while link is not None and len(chain) < 8:
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

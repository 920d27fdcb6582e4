"""The writer processes, and the injector that runs rounds of faults against them."""

import contextlib
import multiprocessing
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess

from django_lakebase.local.client import LocalLakebase, call

from . import writer
from .faults import NOW, Fault
from .schedule import ScheduledFault

# Seconds after the end of a round within which all threads must write again.
RECOVERY_TIMEOUT = 15.0
COMMAND_TIMEOUT = 60.0
PRELOADED = ["django.db.models", "psycopg_pool", "tools.chaos.writer"]


@dataclass(slots=True, kw_only=True)
class InjectedFault:
    """A fault and the monotonic times of its start and end."""

    fault: Fault
    started: float
    ended: float = 0.0


@dataclass(slots=True, kw_only=True)
class Round:
    """
    A round that took place, in monotonic times.

    *recovered* is when all threads had written again, or 0 if they did not in time.
    """

    faults: list[InjectedFault] = field(default_factory=list)
    started: float = 0.0
    ended: float = 0.0
    recovered: float = 0.0

    @property
    def names(self) -> list[str]:
        """The names of the faults."""
        return [injected.fault.name for injected in self.faults]


class WriterProcesses:
    """The processes of writers."""

    def __init__(self, specs: Sequence[writer.Spec]) -> None:
        # The fork server loads these modules once for all processes.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._progress = context.RawArray("d", sum(spec.threads for spec in specs))
        self._pipes: list[Connection] = []
        self._processes: list[ForkServerProcess] = []
        for spec in specs:
            ours, theirs = context.Pipe()
            process = context.Process(
                target=writer.main, args=(spec, self._progress, theirs)
            )
            process.start()
            # With this copy closed, the death of the process raises EOFError here.
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def await_ready(self) -> None:
        """Wait until every thread writes; raises TimeoutError."""
        for pipe in self._pipes:
            if not pipe.poll(COMMAND_TIMEOUT):
                raise TimeoutError("a writer process did not start")
            pipe.recv()
        if not self.await_progress(time.monotonic(), COMMAND_TIMEOUT):
            raise TimeoutError("not every thread writes, although no fault is active")

    def send(self, command: str) -> None:
        """Send *command* to all processes, and wait until they have carried it out."""
        for pipe in self._pipes:
            pipe.send(command)
        for pipe in self._pipes:
            if not pipe.poll(COMMAND_TIMEOUT):
                raise TimeoutError(f"a writer process did not carry out {command!r}")
            pipe.recv()

    def await_progress(self, since: float, timeout: float) -> float:
        """
        Wait until every thread has written after *since*, a monotonic time.

        Returns the time at which they have, or 0 after *timeout* seconds.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if min(self._progress) > since:
                return time.monotonic()
            time.sleep(0.05)
        return 0.0

    def stop(self) -> int:
        """Stop all; return how many threads or processes had to be killed."""
        killed = 0
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send("stop")
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            try:
                killed += pipe.recv() if pipe.poll(COMMAND_TIMEOUT) else 1
            except EOFError:
                killed += 1
            process.join(1 if killed else 10)
            if process.is_alive():
                process.kill()
                process.join()
            pipe.close()
            process.close()
        self._pipes, self._processes = [], []
        return killed

    @property
    def pids(self) -> list[int | None]:
        """The process ids."""
        return [process.pid for process in self._processes]


class FaultInjector:
    """Runs rounds of faults."""

    def __init__(self, local: LocalLakebase, writers: WriterProcesses) -> None:
        self._local, self._writers = local, writers

    def run_round(self, scheduled: Iterable[ScheduledFault]) -> Round:
        """Run one round and wait for recovery."""
        round_ = Round(started=time.monotonic())
        active: dict[str, InjectedFault] = {}
        events = [(item.start, True, item) for item in scheduled]
        events += [(item.end, False, item) for item in scheduled]
        for offset, is_start, item in sorted(events, key=lambda event: event[:2]):
            time.sleep(max(0.0, round_.started + offset - time.monotonic()))
            if is_start:
                # Recorded first: a writer may get an error before the call returns.
                injected = InjectedFault(fault=item.fault, started=time.monotonic())
                round_.faults.append(injected)
                active[item.fault.name] = injected
                self._start(item)
            else:
                self._end(item.fault)
                active[item.fault.name].ended = time.monotonic()
        self._local.clear_faults()
        round_.ended = time.monotonic()
        round_.recovered = self._writers.await_progress(round_.ended, RECOVERY_TIMEOUT)
        return round_

    def _start(self, scheduled: ScheduledFault) -> None:
        fault = scheduled.fault
        if fault.emulator_fault:
            options = {
                key: time.time() if value == NOW else value
                for key, value in fault.options.items()
            }
            self._local.set_fault(fault.emulator_fault, **options)
        if scheduled.drops_credentials:
            self._writers.send("drop-credential")
        if fault.command == "exhaust-pool":
            self._writers.send(f"{fault.command} {scheduled.duration}")
        elif fault.command:
            self._writers.send(fault.command)

    def _end(self, fault: Fault) -> None:
        if fault.emulator_fault:
            call(self._local.url, "DELETE", f"faults/{fault.emulator_fault}")
        if fault.exclusive_key == "fail-dns":
            self._writers.send("fail-dns")

"""Plays the troubles to the writers, and waits for each thread to be well again."""

import contextlib
import multiprocessing
import time
from dataclasses import dataclass, field
from typing import Any

from django_lakebase.local.client import call

from . import writer
from .faults import NOW

# Seconds after a trouble's end within which all must write again.
RECOVERS_WITHIN = 15.0
READY_WITHIN = 60.0
PRELOADED = ["databricks.sdk", "django.db.models", "psycopg_pool", "tools.chaos.writer"]


@dataclass(slots=True, kw_only=True)
class Happened:
    """A round as it was: when each trouble began and ended, when all were well."""

    troubles: list[Any] = field(default_factory=list)
    began: float = 0.0
    ended: float = 0.0
    well: float = 0.0


class Writers:
    """The processes of writers."""

    def __init__(self, specs):
        # The server that forks them loads the SDK once, which takes a while.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._progress = context.RawArray("d", sum(spec.threads for spec in specs))
        self._pipes, self._processes = [], []
        for spec in specs:
            mine, theirs = context.Pipe()
            process = context.Process(
                target=writer.main, args=(spec, self._progress, theirs)
            )
            process.start()
            # With our end of theirs closed, the death of a process is an EOFError.
            theirs.close()
            self._pipes.append(mine)
            self._processes.append(process)

    def await_ready(self):
        """Wait until all write; raises TimeoutError."""
        for pipe in self._pipes:
            if not pipe.poll(READY_WITHIN):
                raise TimeoutError("a process of writers does not start")
            pipe.recv()
        if not self.await_progress(time.monotonic(), READY_WITHIN):
            raise TimeoutError("not every thread writes, with no trouble on")

    def tell(self, order):
        """Give all the *order*."""
        for pipe in self._pipes:
            pipe.send(order)
        for pipe in self._pipes:
            if not pipe.poll(READY_WITHIN):
                raise TimeoutError(f"a process of writers does not {order}")
            pipe.recv()

    def await_progress(self, since, seconds):
        """Wait until every thread has written after *since*; return when, or 0."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if min(self._progress) > since:
                return time.monotonic()
            time.sleep(0.05)
        return 0.0

    def stop(self):
        """End all; return how many threads or processes did not end by themselves."""
        late = 0
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send("stop")
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            try:
                late += pipe.recv() if pipe.poll(READY_WITHIN) else 1
            except EOFError:
                late += 1
            process.join(1 if late else 10)
            if process.is_alive():
                process.kill()
                process.join()
            pipe.close()
            process.close()
        self._pipes, self._processes = [], []
        return late

    @property
    def pids(self):
        """Their process ids."""
        return [process.pid for process in self._processes]


class Conductor:
    """Plays rounds."""

    def __init__(self, local, writers):
        self._local, self._writers = local, writers

    def play(self, plays):
        """Play one round and wait for recovery; return what happened."""
        happened = Happened(began=time.monotonic())
        events = [(play.begins, True, play) for play in plays]
        events += [(play.ends, False, play) for play in plays]
        for moment, begins, play in sorted(events, key=lambda event: event[:2]):
            time.sleep(max(0.0, happened.began + moment - time.monotonic()))
            if begins:
                # Before it begins: an error may be quicker than the answer to us.
                happened.troubles.append([play.trouble, time.monotonic(), 0.0])
                self._begin(play)
            else:
                self._end(play)
                [noted] = [t for t in happened.troubles if t[0] is play.trouble]
                noted[2] = time.monotonic()
        self._local.clear_faults()
        happened.ended = time.monotonic()
        happened.well = self._writers.await_progress(happened.ended, RECOVERS_WITHIN)
        return happened

    def _begin(self, play):
        trouble = play.trouble
        if trouble.fault:
            settings = {
                key: time.time() if value == NOW else value
                for key, value in trouble.settings.items()
            }
            self._local.set_fault(trouble.fault, **settings)
        if play.forgets:
            self._writers.tell("forget")
        if trouble.order:
            how = f" {play.lasts}" if trouble.order == "hog" else ""
            self._writers.tell(trouble.order + how)

    def _end(self, play):
        trouble = play.trouble
        if trouble.fault:
            call(self._local.url, "DELETE", f"faults/{trouble.fault}")
        if trouble.thing == "resolve":
            self._writers.tell("resolve")

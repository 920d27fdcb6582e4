"""Programs that use multiprocessing, through token rotations."""

import contextlib
import json
import sys

from tests.helpers.app_servers import (
    ROTATES_WITHIN,
    shared_sessions,
    started,
    wait_until_disconnected,
)

METHODS = ["spawn", "forkserver", "fork"]
CRUNCH = [sys.executable, "-m", "tests.projects.site.crunch"]
KEPT = json.dumps({"CONN_MAX_AGE": None})


def test_processes_work_through_rotations(busy):
    """With each start method; each process has its own session."""
    with contextlib.ExitStack() as stack:
        # At the same time: most of the time they wait for credentials to expire.
        programs = [
            stack.enter_context(
                started([*CRUNCH, method], **busy.env, SITE_DATABASE=KEPT)
            )
            for method in METHODS
        ]
        for program in programs:
            assert program.wait(ROTATES_WITHIN) == 0, program.output
            answers = [json.loads(line) for line in program.lines if line[:1] == "{"]

            assert len({facts["pid"] for facts in answers}) == 3
            assert shared_sessions(answers) == set()
            first, last = answers[0], answers[-1]
            assert (first["pid"], first["session"]) == (last["pid"], last["session"])
    wait_until_disconnected(busy)

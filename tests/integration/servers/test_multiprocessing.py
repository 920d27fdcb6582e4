"""Programs that share their work out by multiprocessing, through rotations."""

import contextlib
import json
import sys

from tests.helpers.programs import (
    ROTATES_WITHIN,
    shared_sessions,
    started,
    until_no_connection,
)

METHODS = ["spawn", "forkserver", "fork"]
CRUNCH = [sys.executable, "-m", "tests.projects.site.crunch"]
KEPT = json.dumps({"CONN_MAX_AGE": None})


def test_processes_live_through_rotations(busy):
    """Whatever starts them, each has its own session, and the parent keeps its own."""
    with contextlib.ExitStack() as stack:
        # All at once, for most of it is waiting for credentials to end.
        programs = [
            stack.enter_context(
                started([*CRUNCH, method], **busy.env, SITE_DATABASE=KEPT)
            )
            for method in METHODS
        ]
        for program in programs:
            assert program.wait(ROTATES_WITHIN) == 0, program.told
            answers = [json.loads(line) for line in program.lines if line[:1] == "{"]

            assert len({facts["pid"] for facts in answers}) == 3
            assert shared_sessions(answers) == set()
            first, last = answers[0], answers[-1]
            assert (first["pid"], first["session"]) == (last["pid"], last["session"])
    until_no_connection(busy)

"""procrastinate: a worker takes our parameters once, for a pool of its own."""

import os
import subprocess
import sys
import time
import uuid

import pytest
from django.db import connection

from tests.packages.procrastinate.jobs.tasks import note
from tests.projects.app.models import Note

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=["host given", "host asked from the workspace"])
def worker(local, request):
    """Run manage.py procrastinate worker, as a user does, in the test database."""
    connection.ensure_connection()
    command = [sys.executable, "-m", "django", "procrastinate", "worker"]
    environment = {**os.environ, "PGDATABASE": connection.settings_dict["NAME"]}
    if request.param != "host given":
        del environment["PGHOST"]
    # What it says is shown by pytest where the test fails.
    with subprocess.Popen(command, env=environment) as process:
        yield process
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()


def wait_for(text):
    """Return once the note *text* has been written."""
    deadline = time.monotonic() + 60
    while not Note.objects.filter(text=text).exists():
        assert time.monotonic() < deadline, f"nobody wrote {text}"
        time.sleep(0.1)


def end_all_other_sessions():
    """Have everybody else's sessions in this database ended, and wait for that."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid, 30000)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return cursor.fetchone()[0]


def test_a_worker_goes_on_past_its_tokens_end(worker, outlive_token):
    """Its pool opens connections with the parameters that it took at its start."""
    # The queue outlives the flush between tests: its tables are not Django's.
    before, after = str(uuid.uuid4()), str(uuid.uuid4())
    note.defer(text=before)
    wait_for(before)
    outlive_token()

    assert end_all_other_sessions() > 0
    note.defer(text=after)

    wait_for(after)

"""procrastinate: a worker gets connection parameters once and has its own pool."""

import os
import subprocess
import sys
import time
import uuid

import pytest
from django.db import connection

from tools.packages.notes.models import Note
from tools.packages.procrastinate.jobs.tasks import note

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=["host from environment", "host from workspace"])
def worker(local, request):
    """Run the worker's management command in the test database."""
    connection.ensure_connection()
    command = [sys.executable, "-m", "django", "procrastinate", "worker"]
    environment = {**os.environ, "PGDATABASE": connection.settings_dict["NAME"]}
    if request.param != "host from environment":
        del environment["PGHOST"]
    # pytest shows the output of the worker if a test fails.
    with subprocess.Popen(command, env=environment) as process:
        yield process
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()


def wait_for(text):
    """Wait until the note *text* exists."""
    deadline = time.monotonic() + 60
    while not Note.objects.filter(text=text).exists():
        assert time.monotonic() < deadline, f"{text} was not created"
        time.sleep(0.1)


def terminate_other_sessions():
    """Terminate all other sessions in this database; return their number."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid, 30000)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return cursor.fetchone()[0]


def test_worker_reconnects_after_token_expiry(worker, expire_tokens):
    """Its pool opens connections with the parameters that it got when it started."""
    # The queue is not flushed between tests, because its tables have no models.
    before, after = str(uuid.uuid4()), str(uuid.uuid4())
    note.defer(text=before)
    wait_for(before)
    expire_tokens()

    assert terminate_other_sessions() > 0
    note.defer(text=after)

    wait_for(after)

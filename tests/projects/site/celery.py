"""The Celery application, whose broker is a folder."""

import os
from pathlib import Path

from celery import Celery
from celery.signals import worker_init

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.projects.site.settings")

FOLDER = Path(os.environ["SITE_FOLDER"])

app = Celery("site", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": str(FOLDER / "queue"),
    "data_folder_out": str(FOLDER / "queue"),
    "control_folder": str(FOLDER / "control"),
    # Seconds between polls.
    "polling_interval": 0.05,
}


@app.task(name="facts")
def facts() -> dict[str, object]:
    """Return the facts of the worker process."""
    from .views import tell

    return tell()


@app.task(name="read")
def read() -> dict[str, object]:
    """Return the facts of a process that needs no tables."""
    from example_project.notes.facts import collect_facts

    return {"pid": os.getpid(), "session": collect_facts().session}


@worker_init.connect
def fetch_before_forking(**_: object) -> None:
    """Open a connection in the parent if the environment says so."""
    if os.environ.get("SITE_WARMS_UP"):
        from django_lakebase import warm

        warm()

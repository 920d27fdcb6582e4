"""What Celery's worker loads; its broker is a folder."""

import os
from pathlib import Path

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.servers.site.settings")

FOLDER = Path(os.environ["SITE_FOLDER"])

app = Celery("site", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": str(FOLDER / "queue"),
    "data_folder_out": str(FOLDER / "queue"),
    "control_folder": str(FOLDER / "control"),
    # Seconds between two looks.
    "polling_interval": 0.05,
}


@app.task(name="facts")
def facts() -> dict[str, object]:
    """Tell the facts of the process that works."""
    from .views import tell

    return tell()

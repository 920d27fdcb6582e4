"""
A program that uses multiprocessing, and prints the facts of each process.

``python -m tests.projects.site.crunch spawn`` starts two, with three credentials each.
"""

import json
import multiprocessing
import os
import sys
import time
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.projects.site.settings")
PROCESSES, CREDENTIALS = 2, 3


def say(facts: dict[str, Any]) -> None:
    """Print *facts* in one write: other processes print to the same pipe."""
    sys.stdout.write(f"{json.dumps(facts)}\n")
    sys.stdout.flush()


def crunch(settings: dict[str, Any], params: dict[str, Any]) -> None:
    """Query until the given number of credentials was used."""
    django.setup()
    from django.db import close_old_connections, connection

    from .views import tell

    connection.settings_dict.update(settings)
    seen: set[str] = set()
    while len(seen) < CREDENTIALS:
        close_old_connections()
        facts = tell()
        seen.add(facts["expires_at"])
        say(facts)
        time.sleep(0.05)
    # Connection parameters from the parent log in with the child's current token.
    import psycopg

    with psycopg.connect(**params):
        pass
    connection.close()
    connection.close_pool()  # type: ignore[attr-defined]


def main() -> int:
    """Connect, start the child processes, and continue to query."""
    django.setup()
    from django.db import connection

    from .views import tell

    say(tell())
    context: Any = multiprocessing.get_context(sys.argv[1])
    params = connection.get_connection_params()
    # The adapters of Django cannot be pickled.
    del params["context"]
    given = connection.settings_dict, params
    children = [context.Process(target=crunch, args=given) for _ in range(PROCESSES)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    say(tell())
    return int(any(child.exitcode for child in children))


if __name__ == "__main__":
    sys.exit(main())

"""Processes that fork with a warm parent: gunicorn --preload, Celery prefork."""

import os
import threading
import traceback

import pytest
from django.db import ProgrammingError

from tests.support import cache_of, one

# Python says so since 3.12; these tests are about the cases where people do it.
pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:This process .* is multi-threaded:DeprecationWarning"
    ),
    pytest.mark.every_environment,
]


def in_child(work):
    """Run *work* in a forked child and return what it returns, as text."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            answer = str(work())
        except BaseException:  # noqa: BLE001 - the parent asserts on it.
            answer = traceback.format_exc()
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer


def test_a_child_has_a_pool_of_its_own(new_wrapper):
    """Two processes on one socket would read each other's answers."""
    wrapper = new_wrapper("forked", OPTIONS={"pool": {"min_size": 1, "max_size": 1}})
    parents = one(wrapper, "SELECT pg_backend_pid()")
    wrapper.close()

    childs = [
        in_child(lambda: one(wrapper, "SELECT pg_backend_pid()")) for _ in range(2)
    ]

    assert str(parents) not in childs
    assert len(set(childs)) == 2
    assert one(wrapper, "SELECT pg_backend_pid()") == parents


@pytest.mark.parametrize("options", [{}, {"pool": True}], ids=["plain", "pool"])
def test_a_child_leaves_an_open_connection_to_its_parent(new_wrapper, options):
    """Whether it goes on working or closes what it found: the parent's lives on."""
    wrapper = new_wrapper("forked", OPTIONS=options)
    parents = one(wrapper, "SELECT pg_backend_pid()")

    def work():
        own = one(wrapper, "SELECT pg_backend_pid()")
        wrapper.close()
        return own

    closing = in_child(wrapper.close)
    working = in_child(work)

    assert closing == "None"
    assert working.isdigit(), working
    assert working != str(parents)
    assert one(wrapper, "SELECT pg_backend_pid()") == parents


def test_a_child_is_outside_of_its_parents_transaction(new_wrapper):
    """What it did there could be nobody's: it is an error, and the parent's holds."""
    wrapper = new_wrapper("forked")
    wrapper.ensure_connection()
    wrapper.set_autocommit(False)
    wrapper.in_atomic_block = True
    inside = one(wrapper, "SELECT txid_current()")

    childs = in_child(lambda: one(wrapper, "SELECT 1"))

    assert ProgrammingError.__name__ in childs
    assert one(wrapper, "SELECT txid_current()") == inside
    wrapper.in_atomic_block = False
    wrapper.rollback()


def test_a_child_uses_the_credential_of_its_parent(new_wrapper, local):
    """A warm parent saves its children the request."""
    wrapper = new_wrapper("forked")
    one(wrapper, "SELECT 1")
    wrapper.close()

    assert in_child(lambda: one(wrapper, "SELECT 1")) == "1"
    assert local.counters()["credentials_issued"] == 1


def test_a_child_can_fetch_while_its_parent_was_fetching(new_wrapper, local):
    """A fork in the middle of a request inherits no lock that nobody will free."""
    wrapper = new_wrapper("forked")
    one(wrapper, "SELECT 1")
    wrapper.close()
    cache = cache_of(wrapper)
    cache.drop(cache.ready())
    with local.fault("api-slow", ms=500):
        busy = threading.Thread(target=cache.get)
        busy.start()
        while not local.counters()["requests"].get("/api/2.0/postgres/credentials"):
            pass
        answer = in_child(lambda: one(wrapper, "SELECT 1"))
        busy.join()

    assert answer == "1"

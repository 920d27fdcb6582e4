"""Sessions that the server ends while they are idle, and what they held."""

import contextlib
import logging

import psycopg
import pytest
from django.db import OperationalError, transaction
from django.db.backends.postgresql.base import Cursor, ServerBindingCursor
from django.db.backends.signals import connection_created
from psycopg import sql

from django_lakebase import session, signals
from django_lakebase.connection import LakebaseError
from tests.support import hear_from, one

POOLS = pytest.mark.parametrize("pool", [False, {"min_size": 1, "max_size": 1}])


def backend(wrapper):
    """Return which session of the server this is."""
    return one(wrapper, "SELECT pg_backend_pid()")


def execute(wrapper, *statements):
    """Run each of *statements*."""
    with wrapper.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def lose(wrapper, local, fault="suspend"):
    """Have the server end the session of *wrapper*, and wait until that is here."""
    settings = {"wake": 0} if fault == "suspend" else {}
    local.set_fault(fault, **settings)
    hear_from(wrapper.connection)


@pytest.fixture
def reopened():
    """Collect the arguments of session_reopened."""
    heard = []

    def listen(sender, signal, **arguments):
        heard.append(arguments)

    signals.session_reopened.connect(listen)
    yield heard
    signals.session_reopened.disconnect(listen)


@pytest.fixture
def at_connect():
    """Give a function that runs statements on each new connection."""
    receivers = []

    def run(*statements):
        def receiver(connection, **arguments):
            execute(connection, *statements)

        receivers.append(receiver)
        connection_created.connect(receiver)

    yield run
    for receiver in receivers:
        connection_created.disconnect(receiver)


@pytest.mark.parametrize("fault", ["suspend", "cut"])
@POOLS
def test_session_lost_while_idle_is_reopened(new_wrapper, local, reopened, pool, fault):
    """A command that never calls close_old_connections goes on."""
    wrapper = new_wrapper("command", OPTIONS={"pool": pool})
    first = backend(wrapper)

    for _ in range(2):
        lose(wrapper, local, fault)
        second = backend(wrapper)
        assert second != first
        first = second

    assert [heard["alias"] for heard in reopened] == ["command", "command"]

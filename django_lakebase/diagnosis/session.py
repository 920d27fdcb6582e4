"""The session in which commands look at a database, apart from Django's connection."""

from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg.abc import Params
from psycopg.sql import Composed

from django_lakebase.auth.credentials import Credential
from django_lakebase.base import LakebaseMixin
from django_lakebase.config.target import Target
from django_lakebase.connect.connector import Connector
from django_lakebase.connect.liveness import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """
    What a deployment step may use.

    *connection* is a psycopg connection with autocommit, with the role that Django
    uses (``assume_role``); *wrapper* is Django's connection to the same database.
    """

    wrapper: LakebaseMixin
    connection: Connection

    def fetch(self, query: LiteralString | Composed, values: Params = ()) -> list[Any]:
        """Return the rows."""
        return self.connection.execute(query, values).fetchall()


def open_connection(
    wrapper: LakebaseMixin,
    *,
    target: Target | None = None,
    credential: Credential | None = None,
) -> Connection:
    """
    Open a connection like Django's, with autocommit and without ``assume_role``.

    *target* replaces the target of *wrapper*. With *credential*, uses no other one.
    Raises LakebaseError.
    """
    return Connector(
        target or wrapper.get_target(),
        {**wrapper.get_connection_params(), "autocommit": True},
        lambda pinned: psycopg.connect(**pinned),
        credential=credential,
    ).run()

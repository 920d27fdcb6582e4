"""Sessions on a local Lakebase that do not use the engine."""

import contextlib
import uuid

import psycopg


def open_session(local, **own):
    """Connect as the service principal, unless *own* parameters say otherwise."""
    facts = local.facts
    params = {
        "host": facts["host"],
        "hostaddr": facts["hostaddr"],
        "port": facts["port"],
        "dbname": facts["database"],
        "user": facts["service_principal"],
        "sslmode": "verify-full",
        "sslrootcert": facts["ca_file"],
        "autocommit": True,
        "connect_timeout": 10,
        **own,
    }
    if "password" not in params:
        params["password"] = local.issue_token(params["user"])
    return psycopg.connect(**params)


@contextlib.contextmanager
def new_database(local, **own):
    """Yield the name of an empty database; *own* parameters may name its owner."""
    name = f"empty_{uuid.uuid4().hex[:8]}"
    with open_session(local, **own) as session:
        session.execute(f"CREATE DATABASE {name}")
    try:
        yield name
    finally:
        with open_session(local, **own) as session:
            session.execute(f"DROP DATABASE {name} WITH (FORCE)")

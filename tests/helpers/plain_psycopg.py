"""Sessions on a local Lakebase that do not use the engine."""

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

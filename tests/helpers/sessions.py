"""A session on the local Lakebase in which the engine takes no part."""

import psycopg


def dialled(local, **own):
    """Connect with psycopg as the service principal, or as it is told."""
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
        params["password"] = local.issue(params["user"])
    return psycopg.connect(**params)

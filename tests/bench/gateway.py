"""
What the local gateway costs: beside a direct TLS connection to the same PostgreSQL.

    python -m tests.bench.gateway
"""

import os
import pwd
import statistics
import time
from pathlib import Path
from typing import Any

import psycopg
import trustme

from django_lakebase.local.client import LocalLakebase

ROUNDS = 7
STATEMENTS = 2000
ROWS = 1_000_000
COPY_OUT = "COPY (SELECT repeat('x', 99) FROM generate_series(1, 1000000)) TO STDOUT"
PIECE = b"x" * 99 + b"\n"


def main() -> None:
    """Print the figures."""
    with LocalLakebase.start() as local:
        through, direct = _ways(local)
        for name, measure in (
            ("SELECT 1", _select),
            ("COPY out of 100 MB", _copy_out),
            ("COPY in of 100 MB", _copy_in),
        ):
            with psycopg.connect(**through) as one, psycopg.connect(**direct) as two:
                pairs = [(measure(one), measure(two)) for _ in range(ROUNDS)]
            ours, theirs = (
                statistics.median(side) for side in zip(*pairs, strict=True)
            )
            ratios = sorted(b / a for a, b in pairs)
            print(
                f"{name:<20} through the gateway {ours * 1000:9.3f} ms, direct "
                f"{theirs * 1000:9.3f} ms, speed {statistics.median(ratios):.2f} "
                f"({ratios[0]:.2f}-{ratios[-1]:.2f})"
            )


def _ways(local: LocalLakebase) -> tuple[dict[str, Any], dict[str, Any]]:
    facts = local.facts
    common = {
        "hostaddr": facts["hostaddr"],
        "user": facts["native_user"],
        "password": facts["native_password"],
        "dbname": facts["database"],
        "sslmode": "require",
        "autocommit": True,
    }
    socket = Path(facts["postgres_socket"])
    port = int(socket.suffix[1:])
    folder = socket.parent.parent
    certificate = trustme.CA().issue_cert("direct.test")
    for name, blob in (
        ("direct.key", certificate.private_key_pem),
        ("direct.pem", certificate.cert_chain_pems[0]),
    ):
        blob.write_to_path(str(folder / name))
        (folder / name).chmod(0o600)
        if os.geteuid() == 0:
            owner = pwd.getpwuid(folder.stat().st_uid)
            os.chown(folder / name, owner.pw_uid, owner.pw_gid)
    with psycopg.connect(
        host=str(socket.parent),
        port=port,
        user="cloud_admin",
        dbname="postgres",
        autocommit=True,
    ) as admin:
        admin.execute(f"ALTER SYSTEM SET ssl_key_file = '{folder / 'direct.key'}'")
        admin.execute(f"ALTER SYSTEM SET ssl_cert_file = '{folder / 'direct.pem'}'")
        admin.execute("ALTER SYSTEM SET ssl = on")
        admin.execute("SELECT pg_reload_conf()")
        admin.execute("SELECT pg_sleep(0.5)")
    through = {**common, "host": facts["host"], "port": facts["port"]}
    return through, {**common, "host": facts["host"], "port": port}


def _select(session: psycopg.Connection[Any]) -> float:
    started = time.perf_counter()
    for _ in range(STATEMENTS):
        session.execute("SELECT 1")
    return (time.perf_counter() - started) / STATEMENTS


def _copy_out(session: psycopg.Connection[Any]) -> float:
    started = time.perf_counter()
    with session.cursor().copy(COPY_OUT) as rows:
        for _ in rows:
            pass
    return time.perf_counter() - started


def _copy_in(session: psycopg.Connection[Any]) -> float:
    session.execute("CREATE TEMP TABLE IF NOT EXISTS taken (line text)")
    session.execute("TRUNCATE taken")
    block = PIECE * 1000
    started = time.perf_counter()
    with session.cursor().copy("COPY taken FROM STDIN") as rows:
        for _ in range(ROWS // 1000):
            rows.write(block)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()

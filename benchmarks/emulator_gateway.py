"""What the local gateway costs: beside a direct TLS connection to its PostgreSQL."""

import os
import pwd
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import trustme

from benchmarks import backends
from benchmarks.measurement import Figure, compared, turns
from django_lakebase.local.client import LocalLakebase

ROUNDS, STATEMENTS = 7, 1000
# Lines of 100 bytes.
ROWS = 1_000_000
COPY_OUT = "COPY (SELECT repeat('x', 99) FROM generate_series(1, %s)) TO STDOUT"
PIECE = b"x" * 99 + b"\n"


def gateway(*, quick: bool) -> Iterator[Figure]:
    """Compare the way through the gateway to the direct one."""
    scale = 10 if quick else 1
    with backends.lakebase() as local:
        through, direct = _ways(local)
        for what, measure, times in (
            (f"SELECT 1, {STATEMENTS // scale:,} times", _select, STATEMENTS // scale),
            (f"COPY out of {100 // scale} MB", _copy_out, ROWS // scale),
            (f"COPY in of {100 // scale} MB", _copy_in, ROWS // scale),
        ):
            with psycopg.connect(**through) as one, psycopg.connect(**direct) as two:
                ways = [partial(measure, session, times) for session in (one, two)]
                taken = turns(ways, ROUNDS)
            yield compared(f"{what}, over a direct connection", taken)


def _ways(local: LocalLakebase) -> tuple[dict[str, Any], dict[str, Any]]:
    facts = local.facts
    common = {
        "hostaddr": facts["hostaddr"],
        "user": facts["native_user"],
        "password": facts["native_password"],
        "dbname": facts["database"],
        "sslmode": "verify-ca",
        "autocommit": True,
    }
    door = Path(facts["postgres_socket"])
    port = int(door.suffix[1:])
    through = {**common, "host": facts["host"], "port": facts["port"]}
    own = {"port": port, "sslrootcert": _switch_tls_on(door, port)}
    return through, {**common, "host": facts["host"], **own}


def _switch_tls_on(door: Path, port: int) -> str:
    """Have PostgreSQL itself speak TLS; return the file of its authority."""
    folder = door.parent.parent
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "direct-ca.pem"))
    certificate = authority.issue_cert("direct.test")
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
        host=str(door.parent),
        port=port,
        user="cloud_admin",
        dbname="postgres",
        autocommit=True,
    ) as admin:
        admin.execute(f"ALTER SYSTEM SET ssl_key_file = '{folder / 'direct.key'}'")
        admin.execute(f"ALTER SYSTEM SET ssl_cert_file = '{folder / 'direct.pem'}'")
        admin.execute("ALTER SYSTEM SET ssl = on")
        admin.execute("SELECT pg_reload_conf()")
    deadline = time.monotonic() + 10
    while not _takes_tls(port) and time.monotonic() < deadline:
        time.sleep(0.1)
    return str(folder / "direct-ca.pem")


def _takes_tls(port: int) -> bool:
    """Return whether the server has taken its new settings: it says so in a byte."""
    with socket.create_connection(("127.0.0.1", port)) as probe:
        # SSLRequest of the protocol.
        probe.sendall(bytes([0, 0, 0, 8, 4, 210, 22, 47]))
        return probe.recv(1) == b"S"


def _select(session: psycopg.Connection[Any], times: int) -> None:
    for _ in range(times):
        session.execute("SELECT 1")


def _copy_out(session: psycopg.Connection[Any], rows: int) -> None:
    with session.cursor().copy(COPY_OUT, [rows]) as lines:
        for _ in lines:
            pass


def _copy_in(session: psycopg.Connection[Any], rows: int) -> None:
    session.execute("CREATE TEMP TABLE IF NOT EXISTS taken (line text)")
    session.execute("TRUNCATE taken")
    block = PIECE * 1000
    with session.cursor().copy("COPY taken FROM STDIN") as lines:
        for _ in range(rows // 1000):
            lines.write(block)

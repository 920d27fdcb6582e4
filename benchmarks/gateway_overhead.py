"""Benchmark of the emulator's gateway: its cost over a direct TLS connection."""

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
from benchmarks.measurement import Measurement, compare, measure_alternately
from django_lakebase.local.client import LocalLakebase

ROUNDS, STATEMENTS, LOGINS = 7, 1000, 20
# Lines of 100 bytes.
ROWS = 1_000_000
COPY_OUT = "COPY (SELECT repeat('x', 99) FROM generate_series(1, %s)) TO STDOUT"
LINE = b"x" * 99 + b"\n"


def gateway(*, quick: bool) -> Iterator[Measurement]:
    """Compare a connection through the gateway to a direct one."""
    scale = 10 if quick else 1
    with backends.running_lakebase() as local:
        gateway_params, direct_params = _connection_params(local)
        connects = [
            partial(_connect, params, LOGINS)
            for params in (gateway_params, direct_params)
        ]
        yield compare(
            f"connect, {LOGINS} times, gateway / direct connection",
            measure_alternately(connects, ROUNDS),
            limit=1.3,
        )
        for name, work, times, limit in (
            (
                f"SELECT 1, {STATEMENTS // scale:,} times",
                _select,
                STATEMENTS // scale,
                1.8,
            ),
            (f"COPY out of {100 // scale} MB", _copy_out, ROWS // scale, None),
            (f"COPY in of {100 // scale} MB", _copy_in, ROWS // scale, None),
        ):
            with (
                psycopg.connect(**gateway_params) as through_gateway,
                psycopg.connect(**direct_params) as direct,
            ):
                works = [
                    partial(work, connection, times)
                    for connection in (through_gateway, direct)
                ]
                seconds = measure_alternately(works, ROUNDS)
            yield compare(f"{name}, gateway / direct connection", seconds, limit)


def _connection_params(local: LocalLakebase) -> tuple[dict[str, Any], dict[str, Any]]:
    facts = local.facts
    common = {
        "host": facts["host"],
        "hostaddr": facts["hostaddr"],
        "user": facts["native_user"],
        "password": facts["native_password"],
        "dbname": facts["database"],
        "sslmode": "verify-ca",
        "autocommit": True,
    }
    unix_socket = Path(facts["postgres_socket"])
    port = int(unix_socket.suffix[1:])
    ca_file = _enable_tls(unix_socket, port)
    return (
        {**common, "port": facts["port"]},
        {**common, "port": port, "sslrootcert": ca_file},
    )


def _enable_tls(unix_socket: Path, port: int) -> str:
    """Enable TLS in PostgreSQL itself; return the path of the CA certificate."""
    folder = unix_socket.parent.parent
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "direct-ca.pem"))
    # As in the gateway, an intermediate authority issues the certificate.
    certificate = authority.create_child_ca().issue_cert("direct.test")
    chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
    for name, pem in (
        ("direct.key", certificate.private_key_pem.bytes()),
        ("direct.pem", chain),
    ):
        (folder / name).write_bytes(pem)
        (folder / name).chmod(0o600)
        if os.geteuid() == 0:
            owner = pwd.getpwuid(folder.stat().st_uid)
            os.chown(folder / name, owner.pw_uid, owner.pw_gid)
    with psycopg.connect(
        host=str(unix_socket.parent),
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
    while not _accepts_tls(port) and time.monotonic() < deadline:
        time.sleep(0.1)
    return str(folder / "direct-ca.pem")


def _accepts_tls(port: int) -> bool:
    """Return whether the server has loaded its new settings and accepts TLS."""
    with socket.create_connection(("127.0.0.1", port)) as probe:
        # The protocol's SSLRequest, which the server answers with "S" or "N".
        probe.sendall(bytes([0, 0, 0, 8, 4, 210, 22, 47]))
        return probe.recv(1) == b"S"


def _connect(params: dict[str, Any], times: int) -> None:
    for _ in range(times):
        psycopg.connect(**params).close()


def _select(connection: psycopg.Connection[Any], times: int) -> None:
    for _ in range(times):
        connection.execute("SELECT 1")


def _copy_out(connection: psycopg.Connection[Any], rows: int) -> None:
    with connection.cursor().copy(COPY_OUT, [rows]) as lines:
        for _ in lines:
            pass


def _copy_in(connection: psycopg.Connection[Any], rows: int) -> None:
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS copied (line text)")
    connection.execute("TRUNCATE copied")
    block = LINE * 1000
    with connection.cursor().copy("COPY copied FROM STDIN") as lines:
        for _ in range(rows // 1000):
            lines.write(block)

"""Direct TLS (sslnegotiation=direct), its faults, and the server's certificate."""

import contextlib
import socket
import ssl
import threading

import psycopg
import pytest
from psycopg import errors, pq

from django_lakebase.local.certs import ALPN_PROTOCOL
from django_lakebase.local.gateway import wire

needs_libpq_17 = pytest.mark.skipif(
    pq.version() < 170000, reason="libpq supports direct TLS from version 17"
)
SSL_REQUEST = wire.packet(wire.SSL_REQUEST.to_bytes(4, "big"))
DIRECT = {"sslnegotiation": "direct"}


@pytest.fixture
def open_socket(local):
    """Return a function that opens a TCP connection to the gateway."""

    def open_socket():
        address = local.facts["hostaddr"], local.facts["port"]
        return socket.create_connection(address, timeout=10)

    return open_socket


@pytest.fixture
def start_tls(local, open_socket):
    """Return a function that opens a connection and starts TLS, direct or not."""
    with contextlib.ExitStack() as stack:

        def start_tls(alpn=(), *, is_direct=True):
            context = ssl.create_default_context(cafile=local.facts["ca_file"])
            if alpn:
                context.set_alpn_protocols(list(alpn))
            with open_socket() as plain:
                if not is_direct:
                    plain.sendall(SSL_REQUEST)
                    assert plain.recv(1) == b"S"
                # This detaches the socket of *plain*.
                client = context.wrap_socket(plain, server_hostname=local.facts["host"])
            return stack.enter_context(client)

        yield start_tls


@needs_libpq_17
@pytest.mark.parametrize("latency", [0, 5])
def test_direct_logins_are_counted_among_all_logins(connect, local, latency):
    """With latency, a proxy in front of the gateway receives the first byte."""
    with local.fault("latency", ms=latency) if latency else contextlib.nullcontext():
        connect().close()
        with connect(**DIRECT) as session:
            assert session.execute("SELECT 1").fetchone() == (1,)

    counters = local.fetch_counters()
    assert (counters["logins"], counters["direct_logins"]) == (2, 1)


@needs_libpq_17
def test_native_password_is_accepted_over_direct_tls(connect, native_login):
    with connect(**native_login, **DIRECT) as session:
        assert session.info.user == native_login["user"]


@needs_libpq_17
def test_rejection_reaches_a_client_with_direct_tls(connect, login_error, local):
    error = login_error(**DIRECT, host="127.0.0.1", sslmode="require")

    assert "does not have SNI" in error
    assert local.fetch_counters()["direct_logins"] == 0


@needs_libpq_17
def test_cancel_request_over_direct_tls_cancels_the_statement(connect):
    """From libpq 17 on, cancel_safe uses the TLS settings of the connection."""
    with connect(**DIRECT) as session, connect() as observer:
        sleeping = (
            "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
        )

        def cancel():
            while not observer.execute(
                sleeping, (session.info.backend_pid,)
            ).fetchone():
                pass
            session.cancel_safe()

        thread = threading.Thread(target=cancel)
        thread.start()
        with pytest.raises(errors.QueryCanceled):
            session.execute("SELECT pg_sleep(60)")
        thread.join()


# ALPN.


@pytest.mark.parametrize("is_direct", [True, False])
def test_alpn_agrees_on_postgresql(start_tls, is_direct):
    client = start_tls(["h2", ALPN_PROTOCOL], is_direct=is_direct)

    assert client.selected_alpn_protocol() == ALPN_PROTOCOL


@pytest.mark.parametrize("alpn", [(), ("h2",)])
def test_direct_tls_without_the_alpn_protocol_is_closed(start_tls, connect, alpn):
    """PostgreSQL 17 sends no message either."""
    client = start_tls(alpn)
    with contextlib.suppress(ConnectionError):
        assert client.recv(1) == b""

    connect().close()


def test_tls_after_an_ssl_request_needs_no_alpn(start_tls):
    client = start_tls(is_direct=False)
    client.sendall(wire.startup({}))

    assert b"Parameter 'user' is missing" in client.recv(1000)


def test_ssl_request_inside_direct_tls_is_rejected(start_tls):
    client = start_tls([ALPN_PROTOCOL])
    client.sendall(SSL_REQUEST)

    assert b"unsupported frontend protocol" in client.recv(1000)


# The fault direct-tls.


@needs_libpq_17
@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("reject", "wrong version number"),
        ("reset", "SSL (SYSCALL )?error"),
        ("no-alpn", "without ALPN"),
        ("close", "SSL connection has been closed"),
    ],
)
def test_direct_tls_fault_affects_only_direct_logins(
    connect, login_error, local, mode, message
):
    with local.fault("direct-tls", mode=mode):
        with pytest.raises(psycopg.OperationalError, match=message):
            connect(**DIRECT)
        connect().close()
    connect(**DIRECT).close()

    counters = local.fetch_counters()
    assert (counters["logins"], counters["direct_logins"]) == (2, 1)


def test_direct_tls_fault_silent_sends_nothing_until_the_client_closes(
    open_socket, local
):
    client_hello = ssl.MemoryBIO()
    context = ssl.create_default_context()
    session = context.wrap_bio(ssl.MemoryBIO(), client_hello, server_hostname="x.test")
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    with local.fault("direct-tls", mode="silent"), open_socket() as client:
        client.sendall(client_hello.read())
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


@pytest.mark.parametrize(("mode", "alpn"), [("no-alpn", None), ("close", "postgresql")])
def test_direct_tls_fault_closes_after_the_handshake(start_tls, local, mode, alpn):
    """With "close", a probe that only shakes hands succeeds, but no login does."""
    with local.fault("direct-tls", mode=mode):
        client = start_tls([ALPN_PROTOCOL])

        assert client.selected_alpn_protocol() == alpn
        assert client.recv(1) == b""


# Certificates.


def test_clients_need_only_the_root_that_signed_the_intermediate_certificate(
    start_tls, local
):
    context = ssl.create_default_context(cafile=local.facts["ca_file"])
    [root] = context.get_ca_certs()

    certificate = start_tls([ALPN_PROTOCOL]).getpeercert()

    assert certificate["issuer"] != root["subject"]


@pytest.mark.parametrize("options", [{}, pytest.param(DIRECT, marks=needs_libpq_17)])
def test_new_authority_fault_replaces_the_root_until_cleared(
    connect, login_error, local, options
):
    """Clients that trust both roots notice nothing."""
    with local.fault("new-authority"):
        assert "certificate verify failed" in login_error(**options)
        connect(**options, sslrootcert=local.facts["ca_bundle"]).close()
    connect(**options).close()
    connect(**options, sslrootcert=local.facts["ca_bundle"]).close()

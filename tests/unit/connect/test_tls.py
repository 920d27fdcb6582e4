"""Handshakes with servers of different kinds, and the shortcuts that follow."""

import contextlib
import errno
import os
import socket
import ssl
import threading
from pathlib import Path

import psycopg
import pytest
import trustme

from django_lakebase.config import libpq
from django_lakebase.config.target import Target
from django_lakebase.connect import tls
from tests.helpers.engine_threads import join_threads

HOST = "ep-x.example.com"


@pytest.fixture(autouse=True)
def new_libpq(monkeypatch):
    """Support direct TLS with any libpq: these tests do not connect with it."""
    keywords = libpq.keywords() | {"sslnegotiation"}
    monkeypatch.setattr(libpq, "keywords", lambda: keywords)


@pytest.fixture(autouse=True)
def no_servers():
    """Forget the servers of earlier tests, which had the same ports."""
    tls.reset()
    yield
    join_threads("lakebase-tls")
    tls.reset()


@pytest.fixture(scope="module")
def authority():
    """Return a root, whose server certificates come from an intermediate authority."""
    return trustme.CA(organization_name="root")


@pytest.fixture
def ca_file(authority, tmp_path):
    """Return the path of a file with the root of the server, and another."""
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    authority.cert_pem.write_to_path(str(path), append=True)
    return str(path)


def context_of(authority, *protocols):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.create_child_ca().issue_cert(HOST).configure_cert(context)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def shake(client, context):
    """Complete a handshake, and wait until the client closes the connection."""
    with context.wrap_socket(client, server_side=True) as secure:
        secure.recv(1)


def new_server(context):
    """Accept direct TLS, and TLS on request, as PostgreSQL 17."""

    def serve(client):
        if client.recv(1, socket.MSG_PEEK) != b"\x16":
            client.recv(8)
            client.sendall(b"S")
        shake(client, context)

    return serve


def server_on_request(context, reject):
    """Accept TLS only on request, as PostgreSQL 16; *reject* any other connection."""

    def serve(client):
        if client.recv(8) == tls.SSL_REQUEST:
            client.sendall(b"S")
            shake(client, context)
        else:
            reject(client)

    return serve


def old_server(context):
    """Close a connection that starts with a ClientHello."""
    return server_on_request(context, lambda _: None)


def answering_server(context):
    """Answer a ClientHello with a message of the protocol."""
    message = b"E\0\0\0\x08Mx\0\0"
    return server_on_request(context, lambda client: client.sendall(message))


def silent_server(context):
    """Wait for a whole packet, which a ClientHello is not."""

    def wait(client):
        while client.recv(1000):
            pass

    return server_on_request(context, wait)


def plain_server(context):
    """Reject all requests for TLS."""

    def serve(client):
        client.recv(8)
        client.sendall(b"N")

    return serve


@contextlib.contextmanager
def serving(serve):
    """Yield the address of a server that handles each connection with *serve*."""

    def handle(client):
        with client, contextlib.suppress(OSError):
            serve(client)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                threading.Thread(target=handle, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("kind", "protocols", "is_direct"),
    [
        (new_server, ["postgresql"], True),
        (new_server, ["http/1.1"], False),
        (new_server, [], False),
        (old_server, ["postgresql"], False),
        (answering_server, [], False),
        (silent_server, [], False),
    ],
)
def test_only_agreement_on_the_protocol_means_direct_tls(
    authority, kind, protocols, is_direct, monkeypatch
):
    """A load balancer may speak TLS, but pass the bytes to an old server."""
    monkeypatch.setattr(tls, "PROBE_TIMEOUT", 0.3)
    with serving(kind(context_of(authority, *protocols))) as address:
        found = tls.probe(address, HOST)

    assert found is not None
    assert (found.is_direct, found.version) == (is_direct, "TLSv1.3")


@pytest.mark.parametrize("direct", [True, False])
def test_handshake_finds_the_root_of_the_chain(authority, ca_file, direct):
    """Not the server's own certificate, and not the intermediate one."""
    with serving(new_server(context_of(authority, "postgresql"))) as address:
        found = tls.probe(address, HOST, direct=direct, ca_file=ca_file)

    assert found is not None
    assert found.root is not None
    assert ssl.DER_cert_to_PEM_cert(found.root) == authority.cert_pem.bytes().decode()


def test_server_without_tls_or_of_another_authority_shows_nothing(authority, ca_file):
    with serving(plain_server(None)) as address:
        assert tls.probe(address, HOST) is None
    with serving(new_server(context_of(trustme.CA(), "postgresql"))) as address:
        assert tls.probe(address, HOST, ca_file=ca_file) is None


def test_closed_port_shows_nothing():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()

    assert tls.probe(address, HOST) is None


needs_memfd = pytest.mark.skipif(
    not hasattr(os, "memfd_create"), reason="the root is stored in memory on Linux only"
)


@needs_memfd
def test_file_in_memory_has_only_the_root(authority):
    root = ssl.PEM_cert_to_DER_cert(authority.cert_pem.bytes().decode())

    path = tls.certificate_path(root)

    for _ in range(2):  # libpq opens it for each connection.
        assert Path(path).read_bytes() == authority.cert_pem.bytes()


@needs_memfd
def test_closed_file_in_memory_is_replaced(authority):
    """A process that becomes a daemon closes it; its number then means another file."""
    root = ssl.PEM_cert_to_DER_cert(authority.cert_pem.bytes().decode())
    descriptor = int(Path(tls.certificate_path(root)).name)
    reader, writer = os.pipe()
    os.write(writer, b"bytes for another reader")
    os.close(writer)
    os.dup2(reader, descriptor)

    path = tls.certificate_path(root)

    assert Path(path).read_bytes() == authority.cert_pem.bytes()
    for number in (reader, descriptor):
        os.close(number)


@needs_memfd
def test_forbidden_file_in_memory_is_not_an_error(monkeypatch):
    """Some kernels are set to reject it (vm.memfd_noexec=2), as are some sandboxes."""

    def reject(name: str) -> int:
        raise PermissionError(errno.EACCES, name)

    monkeypatch.setattr(os, "memfd_create", reject)

    assert tls.certificate_path(b"root") == ""


def server_at(address, **own):
    """Return a reached server at *address*."""
    target = Target(
        **{
            "alias": "a",
            "label": "a",
            "login": None,
            "host": HOST,
            "hostaddr": address[0],
            "port": str(address[1]),
            **own,
        }
    )
    server = tls.server_of(target, HOST)
    server.record_success(0.1)
    return server


VERIFIED = {"sslmode": "verify-full", "sslrootcert": "system"}
REQUIRED = {"sslmode": "require"}


def learn(server):
    """Let *server* make its probe; return the shortcuts of the next connection."""
    server.shortcuts()
    join_threads("lakebase-tls")
    return server.shortcuts()


@needs_memfd
def test_shortcuts_are_direct_tls_and_one_root(authority, ca_file, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)
    with serving(new_server(context_of(authority, "postgresql"))) as address:
        found = learn(server_at(address, **VERIFIED))

    assert set(found) == {"sslnegotiation", "connect_timeout", "sslrootcert"}
    assert found["sslnegotiation"] == "direct"
    assert Path(found["sslrootcert"]).read_bytes() == authority.cert_pem.bytes()


def test_first_connection_makes_no_probe(authority):
    """Most management commands open one connection."""
    with serving(new_server(context_of(authority, "postgresql"))) as address:
        target = Target(alias="a", label="a", login=None, port=str(address[1]))
        server = tls.server_of(target, HOST)

        assert learn(server) == {}


@pytest.mark.parametrize(
    "own",
    [
        {"sslnegotiation": "postgres"},
        {"sslnegotiation": "direct"},
    ],
)
def test_chosen_negotiation_is_not_probed(authority, own):
    with serving(new_server(context_of(authority, "postgresql"))) as address:
        assert learn(server_at(address, **REQUIRED, **own)) == {}


@pytest.mark.parametrize(
    "own", [{"port": ""}, {"hostaddr": "127.0.0.1,127.0.0.2"}, {"port": "1,2"}]
)
def test_server_that_the_settings_do_not_name_is_not_probed(own, monkeypatch):
    """A service file names it, or libpq chooses it from a list."""
    probed = []
    monkeypatch.setattr(tls, "probe", lambda address, *_, **__: probed.append(address))

    learn(server_at(("127.0.0.1", 1), **REQUIRED, **own))

    assert probed == []


def test_old_libpq_never_gets_the_parameter(authority, monkeypatch):
    """Version 16 fails with it."""
    old = libpq.keywords() - {"sslnegotiation"}
    monkeypatch.setattr(libpq, "keywords", lambda: old)
    with serving(new_server(context_of(authority, "postgresql"))) as address:
        assert learn(server_at(address, **REQUIRED)) == {}


def test_rejected_direct_tls_is_not_tried_again(authority):
    with serving(new_server(context_of(authority, "postgresql"))) as address:
        server = server_at(address, **REQUIRED)
        shortcuts = learn(server)

        server.reject(shortcuts, psycopg.OperationalError("EOF"))

        assert shortcuts["sslnegotiation"] == "direct"
        assert learn(server) == {}


def test_slow_server_gets_direct_tls_when_it_is_fast_again(authority):
    """An attempt with direct TLS would exceed its time limit each time."""
    with serving(new_server(context_of(authority, "postgresql"))) as address:
        server = server_at(address, **REQUIRED)
        learn(server)

        server.record_success(tls.DIRECT_TIMEOUT + 0.1)

        assert server.shortcuts() == {}
        server.record_success(0.1)
        assert server.shortcuts()["sslnegotiation"] == "direct"


@needs_memfd
def test_changed_authority_is_learned_once(authority, ca_file, monkeypatch):
    """A server whose certificates alternate gets the whole file in the end."""
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)
    not_verified = psycopg.OperationalError("SSL error: certificate verify failed")
    with serving(new_server(context_of(authority, "postgresql"))) as address:
        server = server_at(address, **VERIFIED)
        shortcuts = learn(server)

        server.reject(shortcuts, not_verified)

        assert server.shortcuts() == {}
        join_threads("lakebase-tls")
        assert set(server.shortcuts()) == {"sslnegotiation", "connect_timeout"}


@needs_memfd
def test_late_rejection_keeps_the_newly_learned_root(authority, ca_file, monkeypatch):
    """Several threads may connect at the moment when the authority changes."""
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)
    not_verified = psycopg.OperationalError("SSL error: certificate verify failed")
    with serving(new_server(context_of(authority, "postgresql"))) as address:
        server = server_at(address, **VERIFIED)
        learned = learn(server)

        server.reject({**learned, "sslrootcert": "/old/root"}, not_verified)

        assert server.shortcuts() == learned


def test_certificate_that_only_direct_tls_shows_ends_direct_tls(authority):
    """A proxy may use another certificate than the server behind it."""
    not_verified = psycopg.OperationalError("SSL error: certificate verify failed")
    with serving(new_server(context_of(authority, "postgresql"))) as address:
        server = server_at(address, sslmode="verify-full", sslrootcert="/a/file")
        shortcuts = learn(server)

        server.reject(shortcuts, not_verified)

        assert set(shortcuts) == {"sslnegotiation", "connect_timeout"}
        assert server.shortcuts() == {}


def test_child_makes_its_own_probe(authority):
    """The thread of the parent does not exist in the child."""
    served, ends = [], threading.Event()

    def serve(client):
        served.append(client)
        ends.wait(10)

    with serving(serve) as address:
        server = server_at(address, **REQUIRED)
        server.shortcuts()
        server.forget_running_probe()

        server.shortcuts()

        ends.set()
        join_threads("lakebase-tls")

    assert len(served) == 4  # With and without direct TLS, in two probes.

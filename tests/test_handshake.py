"""The handshake apart from a login: what it says when it does not come about."""

import contextlib
import socket
import threading

import pytest

from django_lakebase.config import Target
from django_lakebase.handshake import SSL_REQUEST, shake_hands


@contextlib.contextmanager
def answering(answer):
    """Give the port of a server that answers the request for TLS with *answer*."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            client, _ = server.accept()
            with client:
                assert client.recv(100) == SSL_REQUEST
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)


def target(**own):
    """Return a target on this machine."""
    return Target(
        **{"alias": "a", "label": "a", "login": None, "hostaddr": "127.0.0.1", **own}
    )


@pytest.mark.parametrize(
    ("answer", "said"),
    [(b"", "closed the connection unexpectedly"), (b"N", "does not support SSL")],
)
def test_servers_without_tls(answer, said):
    """In libpq's words, which the table of failures knows."""
    with answering(answer) as port, pytest.raises(OSError, match=said):
        shake_hands(target(port=str(port)), "ep-x.example.com", 5)


def test_a_name_that_does_not_resolve():
    """In libpq's words too."""
    with pytest.raises(OSError, match=r"failed to resolve host 'ep-x\.invalid'"):
        shake_hands(target(hostaddr=""), "ep-x.invalid", 5)


def test_a_file_of_authorities_that_is_not_there():
    """It is named."""
    with (
        answering(b"S") as port,
        pytest.raises(OSError, match=r'root certificate file "/none\.pem"'),
    ):
        shake_hands(target(port=str(port), sslrootcert="/none.pem"), "ep-x", 5)


def test_nothing_is_verified_unless_that_is_asked_for(local):
    """As libpq does with sslmode=require."""
    facts = local.facts
    here = target(port=str(facts["port"]))
    ours = target(
        port=str(facts["port"]), sslmode="verify-full", sslrootcert=facts["ca_file"]
    )

    assert not shake_hands(here, facts["host"], 5).is_verified
    assert shake_hands(ours, facts["host"], 5).is_verified

"""TLS handshakes with servers that do not support TLS."""

import contextlib
import socket
import threading

import psycopg
import pytest

from django_lakebase.connect.tls import SSL_REQUEST
from tests.helpers.tls_handshake import shake_hands_with


@contextlib.contextmanager
def answering(answer):
    """Yield the port of a server that answers the request for TLS with *answer*."""
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


@pytest.mark.parametrize(
    ("answer", "said"),
    [(b"", "closed the connection unexpectedly"), (b"N", "does not support SSL")],
)
def test_server_without_tls_raises_the_message_of_libpq(answer, said):
    """The failure table recognises it."""
    with (
        answering(answer) as port,
        pytest.raises(psycopg.OperationalError, match=said),
    ):
        shake_hands_with("ep-x.example.com", port)

"""
A relay that counts round trips, without a packet filter and its privileges.

The relay connects clients to the gateway and forwards bytes. A round trip begins when
the client sends something after it has received something from the server. TCP packets
would be the wrong unit: one flight may consist of several, and their number depends on
the size of certificates and on the kernel.
"""

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class RelayedConnection:
    """A client's connection at *client_port*, and its round trips until now."""

    client: socket.socket
    server: socket.socket
    client_port: int
    round_trips: int = 0
    is_answered: bool = True

    def forward_from(self, sender: socket.socket) -> bool:
        """Forward what *sender* has sent; return whether both sides are still open."""
        is_client = sender is self.client
        with contextlib.suppress(ConnectionError):
            if data := sender.recv(65536):
                self.round_trips += is_client and self.is_answered
                self.is_answered = not is_client
                (self.server if is_client else self.client).sendall(data)
                return True
        self.client.close()
        self.server.close()
        return False


class RoundTripCounter:
    """A relay that counts the round trips of each client."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: dict[socket.socket, RelayedConnection] = {}
        # The round trips of closed connections by client port.
        self._counts: dict[int, int] = {}
        self._has_closed = threading.Condition()

    @classmethod
    @contextlib.contextmanager
    def relaying_to(cls, host: str, port: int) -> Iterator["RoundTripCounter"]:
        """Listen on a free port, and forward its connections to *port* of *host*."""
        counter = cls((host, port))
        thread = threading.Thread(target=counter._serve)
        thread.start()
        try:
            yield counter
        finally:
            # Closing a socket does not wake up accept(); shutting it down does.
            counter._listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for end in (counter._listener, *counter._open):
                end.close()

    def take(self, client_port: int) -> int:
        """Wait until the client at *client_port* has closed; return its round trips."""
        with self._has_closed:
            self._has_closed.wait_for(lambda: client_port in self._counts)
            return self._counts.pop(client_port)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ends = [self._listener, *self._open]
                for end in select.select(ends, [], [])[0]:
                    if end is self._listener:
                        self._accept()
                    elif end in self._open:
                        self._forward_from(end)

    def _accept(self) -> None:
        client, (_, client_port) = self._listener.accept()
        server = socket.create_connection(self._address)
        connection = RelayedConnection(client, server, client_port)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open[end] = connection

    def _forward_from(self, sender: socket.socket) -> None:
        connection = self._open[sender]
        if connection.forward_from(sender):
            return
        del self._open[connection.client], self._open[connection.server]
        with self._has_closed:
            self._counts[connection.client_port] = connection.round_trips
            self._has_closed.notify_all()

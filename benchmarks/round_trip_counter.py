"""
A relay that counts round trips, without a packet filter and its privileges.

It stands between a client and the gateway and moves bytes. What goes to the server
after something came from it begins another flight: TCP's own packets, of which a
flight may have several, would count the size of certificates and the mood of the
kernel instead.
"""

import contextlib
import select
import socket
import threading
from collections.abc import Iterator


class Relay:
    """Moves the bytes of one client at a time, and counts its flights."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.flights = 0
        self._over = threading.Event()

    @classmethod
    @contextlib.contextmanager
    def to(cls, host: str, port: int) -> Iterator["Relay"]:
        """Relay what comes to a port of its own to *port* of *host*."""
        relay = cls((host, port))
        thread = threading.Thread(target=relay._serve)
        thread.start()
        try:
            yield relay
        finally:
            # Wakes the accept() that a close alone would leave waiting.
            relay._listener.shutdown(socket.SHUT_RDWR)
            relay._listener.close()
            thread.join()

    def taken(self) -> int:
        """Return the flights of the client that has just closed; count anew."""
        self._over.wait()
        self._over.clear()
        flights, self.flights = self.flights, 0
        return flights

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client, socket.create_connection(self._address) as server:
                    for one in (client, server):
                        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._move(client, server)
                self._over.set()

    def _move(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        last = server
        while True:
            for source in select.select([client, server], [], [])[0]:
                blob = source.recv(65536)
                if not blob:
                    return
                if source is client and last is server:
                    self.flights += 1
                last = source
                other[source].sendall(blob)

"""
A relay that counts round trips, without a packet filter and its privileges.

The relay connects a client to the gateway and forwards bytes. A round trip begins when
the client sends something after it has received something from the server. TCP packets
would be the wrong unit: one flight may consist of several, and their number depends on
the size of certificates and on the kernel.
"""

import contextlib
import select
import socket
import threading
from collections.abc import Iterator


class RoundTripCounter:
    """A relay that serves one client at a time and counts its round trips."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._round_trips = 0
        self._is_closed = threading.Event()

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
            counter._listener.close()
            thread.join()

    def take(self) -> int:
        """Wait until the client has closed; return its round trips and start over."""
        self._is_closed.wait()
        self._is_closed.clear()
        count, self._round_trips = self._round_trips, 0
        return count

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client, socket.create_connection(self._address) as server:
                    for end in (client, server):
                        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._forward(client, server)
                self._is_closed.set()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        peers = {client: server, server: client}
        last_sender = server
        while True:
            for sender in select.select([client, server], [], [])[0]:
                data = sender.recv(65536)
                if not data:
                    return
                if sender is client and last_sender is server:
                    self._round_trips += 1
                last_sender = sender
                peers[sender].sendall(data)

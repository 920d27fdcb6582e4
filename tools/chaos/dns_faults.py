"""Name resolution inside a writer, which can be made to fail."""

import socket

LOOPBACK = "127.0.0.1"
FAILURES = {
    "again": (socket.EAI_AGAIN, "Temporary failure in name resolution"),
    "gone": (socket.EAI_NONAME, "Name or service not known"),
}


class Resolver:
    """Stands where the operating system's does, for this process."""

    def __init__(self):
        self._real = socket.getaddrinfo
        self._failure = None

    def install(self):
        """Be asked from now on."""
        socket.getaddrinfo = self

    def fail(self, how):
        """Fail as *how* says, or "" for not at all."""
        self._failure = FAILURES.get(how)

    def __call__(self, host, *args, **kwargs):
        if self._failure is not None:
            raise socket.gaierror(*self._failure)
        name = host.decode() if isinstance(host, bytes) else str(host)
        # The hosts of the local Lakebase are in no name server.
        here = LOOPBACK if ".database." in name else host
        return self._real(here, *args, **kwargs)

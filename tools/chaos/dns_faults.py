"""Name resolution inside a writer process, which can be made to fail."""

import socket
from typing import Any

LOOPBACK = "127.0.0.1"
FAILURES = {
    "again": (socket.EAI_AGAIN, "Temporary failure in name resolution"),
    "gone": (socket.EAI_NONAME, "Name or service not known"),
}


class Resolver:
    """A replacement for socket.getaddrinfo() in this process."""

    def __init__(self) -> None:
        self._real = socket.getaddrinfo
        self._failure: tuple[int, str] | None = None

    def install(self) -> None:
        """Replace socket.getaddrinfo()."""
        socket.getaddrinfo = self  # type: ignore[assignment]

    def set_failure(self, name: str) -> None:
        """Fail with the failure *name* from now on, or with "" not at all."""
        self._failure = FAILURES.get(name)

    def __call__(self, host: str | bytes, *args: Any, **kwargs: Any) -> Any:
        if self._failure is not None:
            raise socket.gaierror(*self._failure)
        name = host.decode() if isinstance(host, bytes) else str(host)
        # No name server knows the host names of the local Lakebase.
        address = LOOPBACK if ".database." in name else host
        return self._real(address, *args, **kwargs)

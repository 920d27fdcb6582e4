"""
The messages of PostgreSQL's wire protocol that the emulator builds and parses.

The gateway parses only the login. This module does no I/O. For the formats, see
https://www.postgresql.org/docs/current/protocol-message-formats.html.
"""

import struct

SSL_REQUEST = 80877103
GSS_REQUEST = 80877104
CANCEL_REQUEST = 80877102
PROTOCOL_3 = 3
# Bytes: PostgreSQL's limit for a startup packet, and the proxy's for a password.
MAX_STARTUP_PACKET = 10000
MAX_PASSWORD = 65536

# The first byte of a TLS handshake; no valid packet length starts with it.
TLS_HANDSHAKE = b"\x16"
# Bytes of a length field, and of the request code in a packet before the login.
LENGTH_SIZE = 4

PASSWORD_REQUEST = b"R" + struct.pack("!II", 8, 3)
_MECHANISMS = b"SCRAM-SHA-256\0\0"
SCRAM_REQUEST = b"R" + struct.pack("!II", 8 + len(_MECHANISMS), 10) + _MECHANISMS


class ProtocolError(Exception):
    """Received bytes that do not follow PostgreSQL's protocol."""


def packet(body: bytes) -> bytes:
    """Return a message without a type byte, as used before the login."""
    return struct.pack("!I", len(body) + 4) + body


def packet_length(header: bytes, max_length: int = MAX_STARTUP_PACKET) -> int:
    """Return the length of the body that follows the four bytes in *header*."""
    (length,) = struct.unpack("!I", header)
    if not LENGTH_SIZE <= length - LENGTH_SIZE <= max_length:
        raise ProtocolError(f"invalid length of startup packet: {length}")
    return int(length - LENGTH_SIZE)


def request_code(body: bytes) -> int:
    """Return the request code or protocol version that starts a packet's *body*."""
    return int(struct.unpack("!I", body[:LENGTH_SIZE])[0])


def parse_startup(body: bytes) -> dict[str, str]:
    """Return the parameters of a StartupMessage."""
    if request_code(body) >> 16 != PROTOCOL_3:
        raise ProtocolError("unsupported frontend protocol")
    parts = body[LENGTH_SIZE:].split(b"\0")
    texts, ends = parts[:-2], parts[-2:]
    if ends != [b"", b""] or len(texts) % 2:
        raise ProtocolError("invalid startup packet layout")
    try:
        words = [text.decode() for text in texts]
    except UnicodeDecodeError as exc:
        raise ProtocolError("the startup packet is not UTF-8") from exc
    return dict(zip(words[::2], words[1::2], strict=True))


def startup(parameters: dict[str, str], *, version: int = PROTOCOL_3 << 16) -> bytes:
    """Return a StartupMessage."""
    body = b"".join(
        name.encode() + b"\0" + value.encode() + b"\0"
        for name, value in parameters.items()
    )
    return packet(struct.pack("!I", version) + body + b"\0")

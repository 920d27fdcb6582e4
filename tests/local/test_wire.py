"""PostgreSQL's protocol before the login: bytes to values and back."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_lakebase.local.gateway import wire
from django_lakebase.local.gateway.wire import ErrorResponse, ProtocolError

WORDS = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1
)


@given(st.dictionaries(WORDS, WORDS))
def test_a_startup_message_is_read_as_it_was_written(parameters):
    """What a client says arrives whole."""
    written = wire.startup(parameters)

    length = wire.packet_length(written[:4], max_length=len(written))
    assert wire.parse_startup(written[4 : 4 + length]) == parameters


@given(st.binary(min_size=4, max_size=200))
def test_any_bytes_are_a_startup_message_or_a_protocol_error(body):
    """Nothing that arrives ends in another error."""
    with contextlib.suppress(ProtocolError):
        wire.parse_startup(body)


@pytest.mark.parametrize("length", [0, 3, 7, 10005, 2**31])
def test_lengths_have_bounds(length):
    """A client cannot ask for more memory than a startup packet needs."""
    with pytest.raises(ProtocolError, match="invalid length"):
        wire.packet_length(length.to_bytes(4, "big"))


def test_a_refusal_has_all_its_fields():
    """Severity, code, text and detail are there for libpq."""
    written = ErrorResponse("no", "28000", "FATAL", "because").encode()

    assert written[:1] == b"E"
    assert written[5:] == b"SFATAL\0VFATAL\0C28000\0Mno\0Dbecause\0\0"
    assert wire.parse_error(written[5:]) == "no"


def test_a_row_may_hold_nulls():
    """A missing value is None and not empty."""
    row = b"\x00\x02" + (2).to_bytes(4, "big") + b"ab" + b"\xff\xff\xff\xff"

    assert wire.parse_row(row) == ["ab", None]


@pytest.mark.parametrize(
    "rest", [b"", b"\0\0", b"u", b"user\0x", b"user\0x\0y", b"a\0\0"]
)
def test_a_packet_that_does_not_end_as_it_should(rest):
    """Pairs of words, and an empty one: nothing else is a StartupMessage."""
    with pytest.raises(ProtocolError, match="layout"):
        wire.parse_startup((3 << 16).to_bytes(4, "big") + rest)

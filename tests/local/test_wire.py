"""Encoding and parsing of PostgreSQL's protocol up to the login."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_lakebase.local.gateway import wire
from django_lakebase.local.gateway.wire import ProtocolError
from django_lakebase.local.login_errors import ErrorResponse

PARAMETER_TEXTS = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1
)


@given(st.dictionaries(PARAMETER_TEXTS, PARAMETER_TEXTS))
def test_parsed_startup_message_has_the_encoded_parameters(parameters):
    encoded = wire.startup(parameters)

    length = wire.packet_length(encoded[:4], max_length=len(encoded))
    assert wire.parse_startup(encoded[4 : 4 + length]) == parameters


@given(st.binary(min_size=4, max_size=200))
def test_parsing_random_bytes_raises_only_protocol_errors(body):
    with contextlib.suppress(ProtocolError):
        wire.parse_startup(body)


@pytest.mark.parametrize("length", [0, 3, 7, 10005, 2**31])
def test_packet_length_out_of_bounds_is_rejected(length):
    """A client must not make the gateway buffer more than a startup packet needs."""
    with pytest.raises(ProtocolError, match="invalid length"):
        wire.packet_length(length.to_bytes(4, "big"))


def test_error_response_has_severity_code_message_and_detail():
    encoded = ErrorResponse("no", "28000", "FATAL", "because").encode()

    assert encoded[:1] == b"E"
    assert encoded[5:] == b"SFATAL\0VFATAL\0C28000\0Mno\0Dbecause\0\0"


@pytest.mark.parametrize(
    "rest", [b"", b"\0\0", b"u", b"user\0x", b"user\0x\0y", b"a\0\0"]
)
def test_startup_message_with_malformed_parameters_is_rejected(rest):
    """Pairs of nonempty name and value must follow, and then one zero byte."""
    with pytest.raises(ProtocolError, match="layout"):
        wire.parse_startup((3 << 16).to_bytes(4, "big") + rest)

"""
Parsing of values as people paste them: with quotes, blanks, schemes or URL paths.

Unambiguous mistakes are corrected, all else is returned unchanged. Pure functions: no
environment and no network.
"""

import contextlib
import re
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

# Spellings of a boolean as text.
SWITCHES = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
    "": False,
}

_QUOTES = "\"'"
_USER_INFO = re.compile(r"://[^/\s]*@")


def clean(text: str) -> str:
    """
    Return *text* without surrounding blanks and quotes.

    ``docker run --env-file`` keeps the quotes of ``NAME="value"``.
    """
    text = text.strip()
    while len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES:
        text = text[1:-1].strip()
    return text


def parse_workspace_host(text: str) -> tuple[str, str]:
    """
    Return the address of a workspace, and the workspace id in *text* or "".

    An address copied from a browser has a path and a query; ``o`` in the query is the
    workspace id. The vendor's CLI removes both; the SDK does not.
    """
    parts = split_url(text if "://" in text else f"https://{text}")
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        return text, ""
    query = parse_qs(parts.query) or parse_qs(parts.fragment.rpartition("?")[2])
    address = parts.netloc if "://" not in text else f"{parts.scheme}://{parts.netloc}"
    return address, query.get("o", [""])[0]


def parse_host(text: str) -> str:
    """Return the host in *text*, which may be the URL of a web page."""
    if not text.lower().startswith(("http://", "https://")):
        return text
    parts = split_url(text)
    is_bare = parts is not None and parts.netloc.lower() == parts.hostname
    return parts.netloc if parts is not None and is_bare else text


def split_url(url: str) -> SplitResult | None:
    """Return the parts of *url*, or None if it is not a valid URL."""
    with contextlib.suppress(
        ValueError
    ):  # Raised for brackets that contain no IPv6 address.
        return urlsplit(url)
    return None


def parse_switch(value: Any) -> Any:
    """Return the text or number *value* as a bool if its meaning is unambiguous."""
    is_plain = isinstance(value, (str, int))
    return SWITCHES.get(clean(str(value)).lower(), value) if is_plain else value


def parse_integer(value: Any) -> Any:
    """Return *value* as an int if it is the text of one, else unchanged."""
    is_number = isinstance(value, str) and re.fullmatch(r"-?[0-9]+", clean(value))
    return int(clean(value)) if is_number else value


def mask_user_info(text: str) -> str:
    """Return *text* with the user and password of any URL in it masked."""
    return _USER_INFO.sub("://***@", text)

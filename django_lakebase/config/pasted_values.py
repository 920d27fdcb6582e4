"""
Parsing of values as people paste them: with quotes, blanks, schemes or URL paths.

The functions correct unambiguous mistakes and return everything else unchanged. They
are pure: they use neither the environment nor the network.
"""

import contextlib
import re
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

# The accepted spellings of a boolean.
TRUE_TEXTS = ("true", "1", "yes", "on")
FALSE_TEXTS = ("false", "0", "no", "off", "")

_QUOTES = "\"'"


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
    Return the address of a workspace and the workspace id in *text*, or "" for the id.

    An address copied from a browser has a path and a query; ``o`` in the query is the
    workspace id. The vendor's CLI removes the path and the query; the SDK does not.
    """
    parts = split_url(text if "://" in text else f"https://{text}")
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        return text, ""
    query = parse_qs(parts.query) or parse_qs(parts.fragment.rpartition("?")[2])
    address = parts.netloc if "://" not in text else f"{parts.scheme}://{parts.netloc}"
    return address, query.get("o", [""])[0]


def parse_host(text: str) -> str:
    """Return the host in *text*, which may be the http or https URL of a web page."""
    if not text.lower().startswith(("http://", "https://")):
        return text
    parts = split_url(text)
    # A port or a user name in the URL is not dropped silently.
    if parts is None or parts.netloc.lower() != parts.hostname:
        return text
    return clean(parts.netloc)


def split_url(url: str) -> SplitResult | None:
    """Return the parts of *url*, or None if it is not a valid URL."""
    # Raised for brackets that contain no IPv6 address.
    with contextlib.suppress(ValueError):
        return urlsplit(url)
    return None


def parse_boolean(value: Any) -> Any:
    """Return *value* as a bool if it is a spelling of one, else unchanged."""
    text = clean(str(value)).lower()
    return text in TRUE_TEXTS if text in TRUE_TEXTS + FALSE_TEXTS else value


def parse_integer(value: Any) -> Any:
    """Return *value* as an int if it is text that spells one, else unchanged."""
    is_number = isinstance(value, str) and re.fullmatch(r"-?[0-9]+", clean(value))
    return int(clean(value)) if is_number else value


def parse_number(value: Any) -> float | None:
    """Return *value* as a float if it is a number or spells one, else None."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(clean(value))
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else None


def mask_user_info(text: str) -> str:
    """Return *text* with the user and password of any URL in it masked."""
    return re.sub(r"://[^/\s]*@", "://***@", text)

"""The headers that the proxy forwards, adds and removes; no I/O."""

import re
import uuid

from multidict import CIMultiDict, CIMultiDictProxy

from django_lakebase.local.state.model import get_scim_id

from .users import USER_COOKIE

# Headers that only the proxy may set.
_PROXY_HEADERS = re.compile(r"forwarded|x-forwarded-.*|x-real-ip|x-request-id")
# Headers of one connection, which a proxy does not forward (RFC 9110, section 7.6.1);
# and Expect, which the proxy answers.
_HOP_BY_HOP = re.compile(
    r"connection|expect|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade"
)
# The client library sends its own handshake to the app.
_HANDSHAKE = re.compile(r"sec-websocket-.*")


def build_request_headers(
    headers: CIMultiDictProxy[str], *, user: str, workspace_id: str, address: str
) -> CIMultiDict[str]:
    """
    Return the headers for the app.

    *headers* are the client's, *address* is the client's IP address, and *user* is the
    e-mail address of the signed-in user.
    """
    host = headers.get("Host", "")
    kept = _copy_without(headers, _PROXY_HEADERS, _HOP_BY_HOP, _HANDSHAKE)
    for name in ("Origin", "Referer"):
        if name in kept:
            kept[name] = _change_scheme(kept[name], host, "http", "https")
    for text in kept.popall("Cookie", []):
        cookies = _remove_user_cookie(text)
        if cookies:
            kept.add("Cookie", cookies)
    kept.update(
        {
            "X-Forwarded-Email": user,
            "X-Forwarded-Preferred-Username": user,
            "X-Forwarded-User": f"{get_scim_id(user)}@{workspace_id}",
            "X-Forwarded-Host": host,
            "X-Forwarded-Proto": "https",
            "X-Real-Ip": address,
            "X-Request-Id": str(uuid.uuid4()),
        }
    )
    return kept


def build_response_headers(
    headers: CIMultiDictProxy[str], host: str
) -> CIMultiDict[str]:
    """Return the app's *headers* as they are for a client that requested *host*."""
    kept = _copy_without(headers, _HOP_BY_HOP)
    if "Location" in kept:
        kept["Location"] = _change_scheme(kept["Location"], host, "https", "http")
    return kept


def _copy_without(
    headers: CIMultiDictProxy[str], *removed: re.Pattern[str]
) -> CIMultiDict[str]:
    """
    Return *headers* without those whose names match one of the patterns *removed*.

    WSGI servers read the underscore in the name of a header as a hyphen.
    """
    return CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if not any(
            pattern.fullmatch(name.lower().replace("_", "-")) for pattern in removed
        )
    )


def _change_scheme(url: str, host: str, old: str, new: str) -> str:
    """Replace the scheme *old* of *url* by *new* if *url* is an address on *host*."""
    origin = f"{old}://{host}"
    rest = url.removeprefix(origin)
    is_own = rest != url and rest[:1] in ("", "/", "?", "#")
    return f"{new}://{host}{rest}" if is_own else url


def _remove_user_cookie(text: str) -> str:
    cookies = text.split(";")
    return ";".join(
        cookie for cookie in cookies if cookie.partition("=")[0].strip() != USER_COOKIE
    ).lstrip()

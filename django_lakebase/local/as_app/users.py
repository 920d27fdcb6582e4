"""The users whom the proxy signs in."""

import re

# A browser with this cookie is signed in as the user that the cookie names.
USER_COOKIE = "lakebase_local_user"
# Without the characters that have a meaning in a header or a cookie.
_USER = re.compile(r'[^\s@",;\\]+@[^\s@",;\\]+')


def is_valid_user(user: str) -> bool:
    """Return whether *user* is an e-mail address that fits into a header."""
    is_plain = user.isascii() and user.isprintable()
    return is_plain and _USER.fullmatch(user) is not None

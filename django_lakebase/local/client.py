"""Talks to a running local Lakebase: faults and counters, over HTTP."""

import json
import urllib.error
import urllib.request
from typing import Any

# Seconds.
TIMEOUT = 10.0


class ClientError(Exception):
    """The local Lakebase did not do it; the text says why."""


def call(url: str, method: str, path: str, body: object = None) -> Any:
    """Send a request under ``/_local/`` of *url* and return its answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310 - an http address of our own.
        f"{url}/_local/{path}",
        data=data,
        method=method,
        headers={"Content-Type": "application/json"},
    )
    # A proxy of the environment must not be asked for this machine's own port.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=TIMEOUT) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as exc:
        with exc:
            text = json.load(exc)["message"]
        raise ClientError(text) from None
    except OSError as exc:
        raise ClientError(
            f"No local Lakebase answers at {url} ({exc}). Is it still running?"
        ) from exc

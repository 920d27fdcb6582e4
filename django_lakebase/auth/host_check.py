"""
A warning if the configured host is not a host of the configured endpoint.

Such settings connect to another branch's database, because a token is valid in the
whole workspace. The check requests the endpoint's hosts from the workspace. It runs in
the background after the first connection, so that it delays nothing.
"""

import logging
import threading

from django_lakebase import events
from django_lakebase.config.target import Target

from .credentials import CredentialCache
from .singleflight import CALL_TIMEOUT, CallError
from .workspace import EndpointInfo, Workspace

logger = logging.getLogger("django_lakebase")

# Seconds between the first connection and the request. Commands that end sooner make no
# request.
DELAY = 2.0


def describe_other_host(target: Target, endpoint: EndpointInfo) -> tuple[str, str]:
    """
    Return what is wrong and a hint if the host of *target* is not the endpoint's.

    Otherwise, or if the endpoint has no host yet, both are empty.
    """
    if not endpoint.hosts or endpoint.has_host(target.host):
        return "", ""
    detail = (
        f'{target.host_setting} is "{target.host}", which is not a host of '
        f'{endpoint.name}: that endpoint has "{endpoint.host}"'
    )
    hint = (
        "Connections may reach the database of another branch. Correct "
        f"{target.host_setting} or {target.endpoint_setting}, so that they name the "
        "same endpoint."
    )
    return detail, hint


class HostCheck:
    """
    Checks each host that connections to one endpoint use, once per process.

    Runs only in a process that has requested a credential itself. A process that has
    inherited its credential, perhaps for a single job, makes no other request either.
    """

    def __init__(self, workspace: Workspace, credentials: CredentialCache) -> None:
        self._workspace, self._credentials = workspace, credentials
        # By host; *_begun* contains the hosts whose timer has fired.
        self._timers: dict[str, threading.Timer] = {}
        self._begun: set[str] = set()

    def start(self, target: Target) -> None:
        """Check the host of *target* in the background, unless a check was started."""
        host = target.host
        if not host or host in self._timers or not target.endpoint:
            return
        if not self._credentials.issued:
            return
        timer = threading.Timer(DELAY, self._run, (target,))
        timer.name, timer.daemon = "lakebase-host-check", True
        if self._timers.setdefault(host, timer) is timer:
            try:
                timer.start()
            except RuntimeError:
                logger.debug("%s: the host is not checked: no thread", target.label)

    def cancel(self, timeout: float = 0.0) -> None:
        """
        Cancel the checks that have not begun; the next connection starts them again.

        Waits at most *timeout* seconds for a running check. For use before a fork.
        """
        for host, timer in list(self._timers.items()):
            timer.cancel()
            if host not in self._begun:
                self._timers.pop(host, None)
            if timer.is_alive() and timer is not threading.current_thread():
                timer.join(max(0.0, timeout))

    def forget(self) -> None:
        """Forget which hosts were checked, in a child process."""
        self._timers.clear()
        self._begun.clear()

    def _run(self, target: Target) -> None:
        self._begun.add(target.host)
        try:
            endpoint = self._workspace.endpoint(target.endpoint, timeout=CALL_TIMEOUT)
        except CallError as exc:
            logger.debug("%s: the host could not be checked: %s", target.label, exc)
            return
        detail, hint = describe_other_host(target, endpoint)
        if detail:
            events.host_is_other(target.alias, target.endpoint, f"{detail}. {hint}")

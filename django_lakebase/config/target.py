"""The Target and Login of an alias: where it connects and who logs in, as values."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

DEFAULT_DATABASE = "databricks_postgres"
DEFAULT_PORT = "5432"
# The value of sslrootcert that means the public certificate authorities.
PUBLIC_AUTHORITIES = "system"
# Seconds; below gunicorn's worker timeout of 30.
DEFAULT_BUDGET = 20.0
USER_VARIABLES = ("PGUSER", "DATABRICKS_CLIENT_ID")


@dataclass(frozen=True, slots=True)
class Login:
    """
    How to log in to a workspace; logins with the same source are equal.

    *key* is a keyed hash of the source, secrets included; only this process can compute
    it. *name* is what messages call the workspace. *arguments* are the SDK's (None: the
    SDK reads the environment), *path* is the dotted path of a callable that returns a
    client.
    """

    key: str = field(repr=False)
    name: str
    url: str = ""
    path: str = ""
    arguments: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """
    Where a connection goes and who logs in; hashable, without secrets.

    *host* and *user* are empty if the workspace provides them; *endpoint* is empty if
    it is to be found by *host*. *database* is None on Django's maintenance connection.
    *endpoint_setting*, *host_setting* and *user_setting* are the settings or variables
    that these values come from, *password_setting* is the setting that makes the login
    native.
    *connect_timeout* limits one attempt, *connect_budget* all of them, in seconds.
    *schema* is the project's schema, empty if it uses the server's search path.
    *libpq_options* are the server settings in the startup packet, with *schema*.
    *options* is the rest of OPTIONS, in a hashable form. *password_key* is a hash, as
    `Login.key` is.
    """

    alias: str
    label: str
    login: Login | None
    endpoint: str = ""
    endpoint_setting: str = ""
    host: str = ""
    host_setting: str = "HOST"
    port: str = DEFAULT_PORT
    database: str | None = DEFAULT_DATABASE
    user: str = ""
    user_setting: str = ""
    hostaddr: str = ""
    sslmode: str = "require"
    sslrootcert: str = ""
    sslnegotiation: str = "auto"
    connect_timeout: int | None = None
    schema: str = ""
    libpq_options: str = ""
    connect_budget: float = DEFAULT_BUDGET
    reconnect: bool = True
    refresh_before_fork: bool = True
    options: Hashable = field(default=(), repr=False)
    password_setting: str = ""
    is_password_token: bool = False
    password_key: str = field(default="", repr=False)


def endpoint_option(host_setting: str) -> str:
    """Return what sets the endpoint of a host that *host_setting* sets."""
    return 'OPTIONS["endpoint"]' if host_setting == "HOST" else "ENDPOINT_NAME"


def is_pooled_host(host: str) -> bool:
    """Return whether *host* is a pooler of the service, judged by its name."""
    return host.partition(".")[0].endswith("-pooler")

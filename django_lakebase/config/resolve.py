"""
Resolution of settings and environment into one Target: where and how an alias connects.

How it works. `fill_settings` writes values from the environment into the empty fields
of ``settings.DATABASES[alias]``, because Django reads them there: for the name and
signature of the test database, and for dbshell. A filled value has the type `Filled`,
which distinguishes it from a value that the project set. `resolve_target` fills, then
validates everything and returns the frozen `Target`.

Invariants. Nothing here uses the network. Filling is idempotent and never fills a
password. A Target contains no secret. docs/reference/settings.md has the rules for
users.
"""

import contextlib
import hashlib
import ipaddress
import os
import re
import secrets
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from django.db.backends.base.base import NO_DB_ALIAS

from django_lakebase.exceptions import SettingsError
from django_lakebase.failures.classify import failures_by_id, scrub
from django_lakebase.failures.render import build_error

from .pasted_values import (
    clean,
    mask_user_info,
    parse_boolean,
    parse_host,
    parse_integer,
    parse_workspace_host,
)
from .target import (
    DEFAULT_BUDGET,
    DEFAULT_DATABASE,
    DEFAULT_PORT,
    USER_VARIABLES,
    Login,
    Target,
)

LAST_PORT = 65535
# The keys of OPTIONS that this engine handles, and Django and libpq do not know.
OWN_OPTIONS = (
    "workspace",
    "endpoint",
    "connect_budget",
    "reconnect",
    "refresh_before_fork",
)
# The keys of OPTIONS that supply a password.
PASSWORD_OPTIONS = ("password", "passfile", "service")
# Keys whose values are text if they come from a URL or a variable. Django and psycopg
# do not convert them.
BOOLEAN_OPTIONS = ("pool", "server_side_binding", "reconnect", "refresh_before_fork")
INTEGER_OPTIONS = ("prepare_threshold",)
BOOLEAN_SETTINGS = (
    "ATOMIC_REQUESTS",
    "AUTOCOMMIT",
    "CONN_HEALTH_CHECKS",
    "DISABLE_SERVER_SIDE_CURSORS",
)
STRONG_SSLMODES = ("require", "verify-ca", "verify-full")
VERIFYING_SSLMODES = ("verify-ca", "verify-full")
# Each of these uses a different name: the service's guide, its Node kit, its Python
# templates and its agent templates.
ENDPOINT_VARIABLES = (
    "ENDPOINT_NAME",
    "LAKEBASE_ENDPOINT",
    "PGENDPOINT",
    "LAKEBASE_AUTOSCALING_ENDPOINT",
)
# The SDK's arguments that name the identity, and those that name the workspace.
LOGIN_ARGUMENTS = ("client_id", "client_secret", "token", "username", "auth_type")
HOST_ARGUMENTS = ("host", "profile", "azure_workspace_resource_id")

# A database token (a JSON web token), which a server accepts for an hour.
_JWT = r"eyJ[\w-]+\.[\w-]+\.[\w-]+"
# A personal access token or a client secret, which only the API accepts.
_API_ONLY = r"(dapi|dose)[0-9a-f]{32,}(-\d+)?"
# A host with or without a port.
_ADDRESS = r"([^\s@/\[\]:]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?"
_ENDPOINT = r"projects/[^/\s]+/branches/[^/\s]+/endpoints/[^/\s]+"
_LOGIN_VARIABLES = ("DATABRICKS_", "ARM_", "GOOGLE_", "ACTIONS_ID_TOKEN_")
_HASH_KEY = secrets.token_bytes(32)


class Filled(str):
    """A value from the environment in a setting that the project left empty."""

    __slots__ = ()


def resolve_target(
    settings_dict: dict[str, Any],
    alias: str,
    environ: Mapping[str, str] = os.environ,
) -> Target:
    """
    Fill *settings_dict* from *environ* and return its Target.

    Raises SettingsError if the settings or the variables are invalid.
    """
    resolver = _Resolver(settings_dict, alias, environ)
    resolver.fill()
    return resolver.target()


def fill_settings(
    settings_dict: dict[str, Any],
    alias: str,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Fill the empty fields of *settings_dict* from *environ*; validates nothing."""
    _Resolver(settings_dict, alias, environ).fill()


def read_variable(name: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the environment variable *name* without surrounding blanks and quotes."""
    return clean(environ.get(name, ""))


class _Resolver:
    """
    Fills the settings of one alias from the environment, and resolves both.

    Methods return a value together with the name of the setting or variable that it
    comes from where an error has to name it.
    """

    def __init__(
        self, settings_dict: dict[str, Any], alias: str, environ: Mapping[str, str]
    ) -> None:
        self.settings, self.alias, self.environ = settings_dict, alias, environ
        # Django connects to the database "postgres" with NAME set to None.
        self.is_maintenance = alias == NO_DB_ALIAS and settings_dict.get("NAME") is None
        options = settings_dict.get("OPTIONS") or {}
        self.options: dict[str, Any] = options if isinstance(options, dict) else {}
        self.label = f'DATABASES["{alias}"]'
        if alias == NO_DB_ALIAS:
            self.label = 'DATABASES (Django\'s connection to the "postgres" database)'
        self.workspace = self.options.get("workspace")
        passwords = {
            "PASSWORD": settings_dict.get("PASSWORD"),
            **{f'OPTIONS["{key}"]': self.options.get(key) for key in PASSWORD_OPTIONS},
        }
        self.password_setting = next((n for n, v in passwords.items() if v), "")
        self.password = clean(str(passwords.get(self.password_setting, "")))
        self.is_native = bool(self.password_setting)
        # Settings that name a database win as a group: variables may belong to another
        # database, so they are not mixed in. A HOST equal to PGHOST names the database
        # of the environment, so the variables do apply.
        host = self.setting("HOST")
        self.has_own_host = bool(host) and host.lower() != self._pghost().lower()
        self.names_endpoint = (
            self.is_native or bool(self.option("endpoint")) or self.has_own_host
        )

    def rejection(self, failure_id: str, **facts: object) -> SettingsError:
        """Return the error for the failure *failure_id*."""
        if "value" in facts:
            # A pasted connection URL contains a password.
            facts["value"] = scrub(mask_user_info(str(facts["value"])))
        return build_error(
            SettingsError, failures_by_id()[failure_id], self.label, facts
        )

    def setting(self, key: str) -> str:
        """Return the value that the project set, or "" if it is empty or filled."""
        value = self.settings.get(key)
        if value is None or isinstance(value, Filled):
            return ""
        return parse_host(clean(str(value))) if key == "HOST" else clean(str(value))

    def option(self, key: str) -> str:
        return clean(str(self.options.get(key) or ""))

    def invalid(
        self, name: str, value: object, problem: str, fix: str
    ) -> SettingsError:
        """Return the error for a value that cannot be parsed."""
        return self.rejection(
            "value-invalid", name=name, value=value, problem=problem, fix=fix
        )

    def variable(self, *names: str) -> tuple[str, str]:
        """Return the value and name of the first variable that is set."""
        for name in names:
            value = read_variable(name, self.environ)
            if value:
                return value, name
        return "", names[0]

    # Filling.

    def fill(self) -> None:
        if self.settings.get("OPTIONS") is None:
            self.settings["OPTIONS"] = self.options
        for key in [key for key, value in self.options.items() if value is None]:
            # The project used os.environ.get() for a variable that is not set.
            del self.options[key]
        self._convert(self.options, BOOLEAN_OPTIONS, INTEGER_OPTIONS)
        self._convert(self.settings, BOOLEAN_SETTINGS, ("CONN_MAX_AGE",))
        for key in ("NAME", "USER", "HOST", "PORT"):
            if key == "NAME" and self.is_maintenance:
                continue
            value = self.setting(key)
            if value:
                self.settings[key] = value
            else:
                self.settings[key] = Filled(getattr(self, f"_{key.lower()}")()[0])

    @staticmethod
    def _convert(
        values: dict[str, Any], switches: Iterable[str], integers: Iterable[str]
    ) -> None:
        for keys, parse in ((switches, parse_boolean), (integers, parse_integer)):
            for key in keys:
                if key in values:
                    values[key] = parse(values[key])
        if values.get("CONN_MAX_AGE") == "":
            values["CONN_MAX_AGE"] = 0

    # Each of these methods returns the value for an empty field, and the name of the
    # variable or setting that it comes from.

    def _name(self) -> tuple[str, str]:
        if self.option("service"):
            return "", ""
        value, name = self.variable("PGDATABASE")
        return value or DEFAULT_DATABASE, name

    def _port(self) -> tuple[str, str]:
        return ("", "") if self.option("service") else self.variable("PGPORT")

    def _host(self) -> tuple[str, str]:
        return ("", "") if self.names_endpoint else (self._pghost(), "PGHOST")

    def _pghost(self) -> str:
        return parse_host(self.variable("PGHOST")[0])

    def _user(self) -> tuple[str, str]:
        if self.setting("USER"):
            return self.setting("USER"), "USER"
        if self.is_native:
            return "", ""
        if self.workspace:
            arguments = self.workspace if isinstance(self.workspace, Mapping) else {}
            name = 'OPTIONS["workspace"]["client_id"]'
            return clean(str(arguments.get("client_id") or "")), name
        return self.variable(*USER_VARIABLES)

    # Resolving.

    def target(self) -> Target:
        options = self.settings.get("OPTIONS") or {}
        if not isinstance(options, dict):
            raise self.rejection("options-invalid", kind=type(options).__name__)
        self._check_conversions()
        self._check_libpq()
        login = None if self.is_native else self._login()
        is_password_token = self._is_password_token()
        endpoint, endpoint_setting = self._endpoint()
        sslmode, sslrootcert = self._tls()
        return Target(
            alias=self.alias,
            label=self.label,
            login=login,
            endpoint=endpoint,
            endpoint_setting=endpoint_setting,
            host=self._checked_host(),
            port=self._checked_port(),
            database=self._checked_database(),
            user=self._checked_user(),
            user_setting=self._user()[1],
            hostaddr=self._hostaddr(),
            sslmode=sslmode,
            sslrootcert=sslrootcert,
            connect_timeout=self._connect_timeout(),
            libpq_options=self._libpq_options(),
            connect_budget=self._budget(),
            reconnect=bool(self.options.get("reconnect", True)),
            refresh_before_fork=bool(self.options.get("refresh_before_fork", True)),
            options=self._other_options(),
            password_setting=self.password_setting,
            is_password_token=is_password_token,
            password_key=self._password_key(),
        )

    def _login(self) -> Login:
        workspace = self.workspace
        if workspace is None or workspace == "":
            values = {
                name: value
                for name, value in self.environ.items()
                if name.startswith(_LOGIN_VARIABLES)
            }
            url = self._workspace_url(
                "DATABRICKS_HOST", self.variable("DATABRICKS_HOST")[0]
            )
            profile, _ = self.variable("DATABRICKS_CONFIG_PROFILE")
            description = f'the workspace of profile "{profile or "DEFAULT"}"'
            return Login(_hashed(values), url or description, url)
        if isinstance(workspace, str):
            description = f"the workspace of {workspace}()"
            return Login(_hashed(workspace), description, path=workspace.strip())
        if not isinstance(workspace, Mapping) or not workspace:
            is_dict = isinstance(workspace, Mapping)
            problem = "is empty" if is_dict else f"is a {type(workspace).__name__}"
            raise self.rejection("workspace-invalid", problem=problem)
        arguments = {
            str(key): clean(value) if isinstance(value, str) else value
            for key, value in workspace.items()
        }
        identity_keys = [key for key in LOGIN_ARGUMENTS if arguments.get(key)]
        if identity_keys and not any(arguments.get(key) for key in HOST_ARGUMENTS):
            problem = (
                f"has {', '.join(identity_keys)} but no host, and DATABRICKS_HOST is "
                "not read for it, because it may name another workspace"
            )
            raise self.rejection("workspace-invalid", problem=problem)
        name, host = 'OPTIONS["workspace"]["host"]', str(arguments.get("host") or "")
        url = self._workspace_url(name, host)
        profile = arguments.get("profile", "DEFAULT")
        description = f'the workspace of profile "{profile}"'
        return Login(_hashed(arguments), url or description, url, arguments=arguments)

    def _workspace_url(self, name: str, value: str) -> str:
        url, _ = parse_workspace_host(value)
        bare = url.removeprefix("https://").removeprefix("http://")
        if value and not re.fullmatch(_ADDRESS, bare):
            fix = "Set it to the address of the workspace, https://<name>."
            raise self.invalid(
                name, value, "this is not the address of a workspace", fix
            )
        return url

    def _endpoint(self) -> tuple[str, str]:
        value, name = self.option("endpoint"), 'OPTIONS["endpoint"]'
        if not value and not self.names_endpoint:
            value, name = self._endpoint_of_environment()
        value = value.strip("/")
        if not value and self.is_native:
            return "", ""
        if not value and self.has_own_host:
            raise self.rejection("host-without-endpoint", value=self.setting("HOST"))
        if not value:
            raise self.rejection("endpoint-missing")
        if not re.fullmatch(_ENDPOINT, value):
            raise self.rejection("endpoint-malformed", name=name, value=value)
        return value, name

    def _endpoint_of_environment(self) -> tuple[str, str]:
        found = {
            name: value
            for name in ENDPOINT_VARIABLES
            if (value := self.variable(name)[0].strip("/"))
        }
        if len(set(found.values())) > 1:
            given = ", ".join(f'{name} is "{value}"' for name, value in found.items())
            raise self.rejection("endpoint-ambiguous", given=given)
        return next(((value, name) for name, value in found.items()), ("", ""))

    def _is_password_token(self) -> bool:
        """Return whether the password is a token; reject one that cannot log in."""
        is_token = re.fullmatch(_JWT, self.password) is not None
        needed = ("HOST", "USER") if self.is_native else ()
        missing = [key for key in needed if not self.setting(key)]
        facts: dict[str, object] = {"password_setting": self.password_setting}
        if self.option("service"):
            missing = []
        if re.fullmatch(_API_ONLY, self.password) or (is_token and missing):
            raise self.rejection("password-is-token", **facts)
        if missing:
            raise self.rejection("native-incomplete", name=missing[0], **facts)
        return is_token

    def _checked_host(self) -> str:
        host = str(self.settings.get("HOST") or "")
        if host.startswith(("/", "@")):
            name = "HOST" if self.setting("HOST") else "PGHOST"
            raise self.rejection("host-socket", name=name, value=host)
        for name in host.split(","):
            self._check_host(name.strip())
        return host

    def _check_host(self, host: str) -> None:
        name = "HOST" if self.setting("HOST") else "PGHOST"
        if "://" in host or re.search(r"[\s=@/]", host):
            self._reject_url(name, host, "host")
        bare, colon, port = host.partition(":")
        if colon and ":" not in port:
            fix = f'Set {name} to "{bare}", and PORT (PGPORT) to "{port}".'
            raise self.invalid(name, host, "it includes a port", fix)

    def _reject_url(self, name: str, value: str, noun: str) -> None:
        fix = (
            f"Set {name} to the {noun} alone. To use a connection URL, parse it with "
            "dj-database-url or django-environ, as docs/howto/urls.md describes."
        )
        raise self.invalid(name, value, f"this is not a {noun}", fix)

    def _checked_database(self) -> str | None:
        database = self.settings.get("NAME")
        if "://" in str(database or ""):
            name = "NAME" if self.setting("NAME") else "PGDATABASE"
            self._reject_url(name, str(database), "database name")
        return None if database is None else str(database)

    def _checked_user(self) -> str:
        user = str(self.settings.get("USER") or "")
        if "://" in user:
            self._reject_url(self._user()[1], user, "user")
        return user

    def _check_conversions(self) -> None:
        """Reject text that is neither a boolean nor a number where one is required."""
        switches = {key: self.settings.get(key) for key in BOOLEAN_SETTINGS}
        for key in ("server_side_binding", "reconnect", "refresh_before_fork"):
            switches[f'OPTIONS["{key}"]'] = self.options.get(key)
        numbers = {"CONN_MAX_AGE": self.settings.get("CONN_MAX_AGE")}
        for key in INTEGER_OPTIONS:
            numbers[f'OPTIONS["{key}"]'] = self.options.get(key)
        for name, value in switches.items():
            if isinstance(value, str):
                fix = "Use True or False, or the text true or false."
                raise self.invalid(name, value, "this is neither true nor false", fix)
        for name, value in numbers.items():
            if isinstance(value, str):
                fix = "Use a whole number of seconds, or None for no limit."
                if name != "CONN_MAX_AGE":
                    fix = "Use a whole number."
                raise self.invalid(name, value, "this is not a whole number", fix)

    def _check_libpq(self) -> None:
        """Reject the libpq variables that no parameter can override."""
        service, _ = self.variable("PGSERVICE")
        service_option = self.option("service")
        if service and not service_option:
            raise self.rejection(
                "libpq-variable",
                name="PGSERVICE",
                value=service,
                problem="libpq would read another host, user or sslmode from its "
                "service file",
                fix="Unset PGSERVICE for this process, or name the service in "
                'OPTIONS["service"].',
            )
        for name in ("PGHOST", "PGHOSTADDR") if service_option else ():
            # psycopg itself reads these variables, but not the service file.
            value, _ = self.variable(name)
            if value:
                raise self.rejection(
                    "libpq-variable",
                    name=name,
                    value=value,
                    problem=f'it would replace the host of OPTIONS["service"], '
                    f"{service_option}",
                    fix=f"Unset {name} for this process, or replace "
                    'OPTIONS["service"] with HOST, PORT, NAME and USER.',
                )
        if not self.is_native:
            self._check_authentication()

    def _check_authentication(self) -> None:
        """Reject settings with which libpq would not send a token."""
        methods, name = self._option_or_variable("require_auth", "PGREQUIREAUTH")
        wanted = [method.strip() for method in methods.split(",") if method.strip()]
        is_negative = any(method.startswith("!") for method in wanted)
        allows = "!password" not in wanted if is_negative else "password" in wanted
        if wanted and not allows:
            raise self.rejection(
                "libpq-variable",
                name=name,
                value=methods,
                problem="a token is sent with the method password, which this does not "
                "allow",
                fix=f'Remove {name}, or set it to "password".',
            )
        binding, name = self._option_or_variable("channel_binding", "PGCHANNELBINDING")
        if binding == "require":
            raise self.rejection(
                "libpq-variable",
                name=name,
                value=binding,
                problem="a login with a token has no channel binding",
                fix=f'Remove {name}, or set it to "prefer".',
            )

    def _option_or_variable(self, key: str, name: str) -> tuple[str, str]:
        value = self.option(key)
        return (value, f'OPTIONS["{key}"]') if value else self.variable(name)

    def _connect_timeout(self) -> int | None:
        text, name = self._option_or_variable("connect_timeout", "PGCONNECT_TIMEOUT")
        if not text:
            return None
        try:
            return int(float(text))
        except (ValueError, OverflowError):
            fix = "Set it to a whole number of seconds, or remove it."
            error = self.invalid(name, text, "this is not a number of seconds", fix)
            raise error from None

    def _libpq_options(self) -> str:
        value = self.option("options")
        if value or self.names_endpoint:
            return value
        return self.variable("PGOPTIONS")[0]

    def _checked_port(self) -> str:
        port = str(self.settings.get("PORT") or "")
        if not port:
            return "" if self.option("service") else DEFAULT_PORT
        if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) <= LAST_PORT:
            name = "PORT" if self.setting("PORT") else "PGPORT"
            raise self.rejection("port-invalid", name=name, value=port)
        return port

    def _hostaddr(self) -> str:
        value, name = self.option("hostaddr"), 'OPTIONS["hostaddr"]'
        if not value and not self.names_endpoint:
            value, name = self.variable("LAKEBASE_HOSTADDR")
        # libpq accepts a list: one address for each host.
        for address in filter(None, value.split(",")):
            try:
                ipaddress.ip_address(address.strip())
            except ValueError:
                error = self.rejection("hostaddr-invalid", name=name, value=address)
                raise error from None
        return value

    def _tls(self) -> tuple[str, str]:
        """Return sslmode and sslrootcert."""
        mode, name = self._option_or_variable("sslmode", "PGSSLMODE")
        mode = mode.lower()
        if not mode and self.option("service"):
            # The engine's default would override a stricter mode in the service file.
            raise self.rejection("sslmode-weak", name='OPTIONS["sslmode"]', value="")
        if mode and mode not in STRONG_SSLMODES:
            raise self.rejection("sslmode-weak", name=name, value=mode)
        rootcert, rootcert_name = self._option_or_variable(
            "sslrootcert", "PGSSLROOTCERT"
        )
        if rootcert == "system" and mode not in ("", "verify-full"):
            # libpq rejects this too: otherwise it would accept any certificate that a
            # public authority has signed.
            raise self.invalid(
                name,
                mode,
                f"{rootcert_name} is system, which needs verify-full",
                f"Set {name} to verify-full, or remove it.",
            )
        if mode == "verify-ca" and not rootcert and not self.option("service"):
            raise self.invalid(
                name,
                mode,
                "it needs the file of a certificate authority",
                'Set OPTIONS["sslrootcert"] (PGSSLROOTCERT) to that file, or use '
                "verify-full, which trusts the public authorities.",
            )
        if mode == "verify-full" and not rootcert and not self.option("service"):
            rootcert = "system"
        return mode or ("verify-full" if rootcert == "system" else "require"), rootcert

    def _budget(self) -> float:
        budget = self.options.get("connect_budget", DEFAULT_BUDGET)
        if isinstance(budget, str):
            with contextlib.suppress(ValueError):
                budget = float(clean(budget))
        is_number = isinstance(budget, (int, float)) and not isinstance(budget, bool)
        if not is_number or not 0 < budget < float("inf"):
            raise self.rejection("budget-invalid", value=repr(budget))
        return float(budget)

    def _other_options(self) -> Hashable:
        pool = self.options.get("pool")
        if pool and pool is not True and not isinstance(pool, Mapping):
            raise self.rejection("pool-invalid", value=repr(pool))
        excluded = (*OWN_OPTIONS, "password")
        return _frozen(
            {key: value for key, value in self.options.items() if key not in excluded}
        )

    def _password_key(self) -> str:
        secret = self.settings.get("PASSWORD") or self.options.get("password")
        return _hashed(str(secret)) if secret else ""


def _hashed(value: object) -> str:
    """Return a hash of *value* that reveals nothing, because its key is random."""
    text = repr(sorted(value.items()) if isinstance(value, dict) else value)
    return hashlib.blake2b(text.encode(), key=_HASH_KEY, digest_size=16).hexdigest()


def _frozen(value: Any) -> Hashable:
    """Return *value* in a hashable form."""
    if isinstance(value, Mapping):
        return tuple(sorted((str(key), _frozen(item)) for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(item) for item in value)
    return value if isinstance(value, Hashable) else id(value)

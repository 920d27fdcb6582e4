"""Failures of the settings: found without a network call, raised as SettingsError."""

from functools import partial

from django_lakebase.failures.failure import Failure, Source

ENDPOINT_FORMAT = "projects/<id>/branches/<id>/endpoints/<id>"

_row = partial(Failure, source=Source.SETTINGS)

SETTINGS_FAILURES = (
    _row(
        id="endpoint-missing",
        summary="neither an endpoint nor a host is configured.",
        hint=(
            "Set PGHOST (or HOST) to the host of the endpoint; or ENDPOINT_NAME (or"
            " LAKEBASE_ENDPOINT, PGENDPOINT, LAKEBASE_AUTOSCALING_ENDPOINT), or "
            f'OPTIONS["endpoint"], to {ENDPOINT_FORMAT}.'
        ),
    ),
    _row(
        id="host-provisioned",
        summary=(
            '{name} is "{value}", the host of an instance of Lakebase Provisioned,'
            " which has no endpoint."
        ),
        hint=(
            "Databricks upgrades these instances to Lakebase Autoscaling projects. Set"
            " {name} to the host that the Connect dialog of the project shows, or"
            f" {{endpoint_option}} to {ENDPOINT_FORMAT}."
        ),
    ),
    _row(
        id="endpoint-ambiguous",
        summary="the environment names more than one endpoint: {given}.",
        hint='Unset all but one, or set OPTIONS["endpoint"].',
    ),
    _row(
        id="endpoint-malformed",
        summary='{name} is "{value}", which is not an endpoint name.',
        hint=f"The format is {ENDPOINT_FORMAT}.",
    ),
    _row(
        id="value-invalid",
        summary='{name} is "{value}": {problem}.',
        hint="{fix}",
    ),
    _row(
        id="libpq-variable",
        summary='{name} is "{value}", and {problem}.',
        hint="{fix}",
    ),
    _row(
        id="sslmode-weak",
        summary=(
            '{name} is "{value}", which allows unencrypted connections; a token must'
            " not be sent over them."
        ),
        hint=(
            "Use require, verify-ca or verify-full, or remove it: require is the"
            " default."
        ),
    ),
    _row(
        id="sslmode-missing",
        summary=(
            'OPTIONS["service"] is "{value}", but OPTIONS["sslmode"] is not set; the'
            " engine's default would override a stricter mode in the service file."
        ),
        hint=(
            'Set OPTIONS["sslmode"] to the mode in the service file: require,'
            " verify-ca or verify-full."
        ),
    ),
    _row(
        id="workspace-invalid",
        summary='OPTIONS["workspace"] {problem}.',
        hint=(
            'Set it to a dict of arguments for the SDK\'s Config, such as {{"profile":'
            ' "prod"}}, or to the dotted path of a callable that returns a'
            " WorkspaceClient."
        ),
    ),
    _row(
        id="native-incomplete",
        summary=(
            "{password_setting} requests a native login, but {name} is not set in the"
            " settings."
        ),
        hint=(
            "Set {name} in the settings too, or remove {password_setting} to log in"
            " with a token."
        ),
    ),
    _row(
        id="host-socket",
        summary='{name} is "{value}", a local socket; a token must not be sent to it.',
        hint=(
            "Set it to the host that the Connect dialog of the project shows, or remove"
            " it to let the engine get the host from the API."
        ),
    ),
    _row(
        id="budget-invalid",
        summary=(
            'OPTIONS["connect_budget"] is {value}, which is not a valid time limit.'
        ),
        hint="Set it to a number of seconds above 0; the default is 20.",
    ),
    _row(
        id="options-invalid",
        summary="OPTIONS is a {kind}, not a dict.",
        hint="Set it to a dict, such as {{}}; the engine requires no keys.",
    ),
    _row(
        id="hostaddr-invalid",
        summary='{name} is "{value}", which is not an IP address.',
        hint=(
            "Set it to the IP address to connect to, or remove it to have the host name"
            " resolved."
        ),
    ),
    _row(
        id="port-invalid",
        summary='{name} is "{value}", which is not a port number.',
        hint="Use a number from 1 to 65535; Lakebase listens on 5432.",
    ),
    _row(
        id="pool-invalid",
        summary='OPTIONS["pool"] is {value}, which is neither a bool nor a dict.',
        hint=(
            "Set it to True, or to a dict of arguments for psycopg_pool's"
            " ConnectionPool."
        ),
    ),
    _row(
        id="pool-age",
        summary="Pooling doesn't support persistent connections.",
        hint=(
            'Set CONN_MAX_AGE to 0, or remove it: OPTIONS["pool"] keeps connections'
            " open."
        ),
    ),
    _row(
        id="pool-package-missing",
        summary='OPTIONS["pool"] is set, but psycopg_pool cannot be imported.',
        hint='Install it: pip install "psycopg[pool]".',
    ),
    _row(
        id="pool-options",
        summary=(
            'OPTIONS["pool"] has a key or value that psycopg_pool.ConnectionPool does'
            " not accept."
        ),
        hint=(
            "Correct or remove the key that the message names; True uses the defaults."
        ),
    ),
)

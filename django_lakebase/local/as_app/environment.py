"""The environment variables that Databricks Apps gives to an app with a database."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# An app in the emulator always has the same name.
APP_NAME = "local-app"
# The variables that the platform sets itself. It passes the name of the endpoint only
# in a variable that the app's configuration chooses.
PLATFORM_VARIABLES = (
    "DATABRICKS_APP_NAME",
    "DATABRICKS_APP_URL",
    "DATABRICKS_APP_PORT",
    "DATABRICKS_HOST",
    "DATABRICKS_WORKSPACE_ID",
    "DATABRICKS_CLIENT_ID",
    "DATABRICKS_CLIENT_SECRET",
    "PGAPPNAME",
    "PGDATABASE",
    "PGHOST",
    "PGPORT",
    "PGSSLMODE",
    "PGUSER",
)
# With these, unmodified clients reach the emulator instead of the internet.
EMULATOR_VARIABLES = ("LAKEBASE_HOSTADDR", "LAKEBASE_LOCAL_URL", "PGHOSTADDR")


def build_environment(
    inherited: Mapping[str, str],
    emulator: Mapping[str, str],
    facts: Mapping[str, Any],
    *,
    app_url: str,
    app_port: int,
    endpoint_variable: str | None,
) -> dict[str, str]:
    """
    Return the environment of an app.

    *emulator* are the variables and *facts* the facts of an emulator with ``api_tls``;
    *inherited* are the variables of the user without those of other databases.
    """
    names = (*PLATFORM_VARIABLES, *EMULATOR_VARIABLES)
    environment = dict(inherited)
    environment |= {name: emulator[name] for name in names if name in emulator}
    environment |= {
        "DATABRICKS_APP_NAME": APP_NAME,
        "DATABRICKS_APP_URL": app_url,
        "DATABRICKS_APP_PORT": str(app_port),
        "DATABRICKS_HOST": emulator["DATABRICKS_HOST"].removeprefix("https://"),
        "DATABRICKS_WORKSPACE_ID": facts["workspace_id"],
        "PGAPPNAME": APP_NAME,
        "PGSSLMODE": "require",
        "REQUESTS_CA_BUNDLE": _write_ca_bundle(
            Path(emulator["REQUESTS_CA_BUNDLE"]),
            Path(inherited.get("REQUESTS_CA_BUNDLE", "")),
        ),
    }
    if endpoint_variable:
        environment[endpoint_variable] = facts["endpoint"]
    return environment


def _write_ca_bundle(ca_file: Path, user_bundle: Path) -> str:
    """
    Write a bundle of the authorities in both files; return its path.

    Without a file *user_bundle*, the public authorities replace it.
    """
    # A dependency of requests, and so of databricks-sdk.
    import certifi

    if not user_bundle.is_file():
        user_bundle = Path(certifi.where())
    bundle = ca_file.with_name("requests-ca.pem")
    bundle.write_bytes(user_bundle.read_bytes() + b"\n" + ca_file.read_bytes())
    return str(bundle)

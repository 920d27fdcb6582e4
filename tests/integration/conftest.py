"""An empty database; tests in a plain environment and with misleading variables."""

import pytest

from tests.helpers.credential_cache import forget_credentials
from tests.helpers.plain_psycopg import new_database

# A misleading value for each variable of libpq that the engine must override.
HOSTILE = {
    "PGAPPNAME": "another program",
    "PGCLIENTENCODING": "latin1",
    "PGCONNECT_TIMEOUT": "17",
    "PGDATESTYLE": "ISO, DMY",
    "PGGEQO": "off",
    "PGGSSDELEGATION": "1",
    "PGGSSENCMODE": "require",
    "PGGSSLIB": "gssapi",
    "PGHOSTADDR": "127.0.0.2",
    "PGKRBSRVNAME": "another",
    "PGLOADBALANCEHOSTS": "random",
    "PGMAXPROTOCOLVERSION": "latest",
    "PGMINPROTOCOLVERSION": "3.0",
    "PGPASSFILE": "/nowhere/pgpass",
    "PGPASSWORD": "of another database",
    "PGREQUIREPEER": "another",
    "PGSERVICEFILE": "/nowhere/pg_service.conf",
    "PGSSLCERT": "/nowhere/client.crt",
    "PGSSLCERTMODE": "require",
    "PGSSLCOMPRESSION": "1",
    "PGSSLCRL": "/nowhere/root.crl",
    "PGSSLCRLDIR": "/nowhere",
    "PGSSLKEY": "/nowhere/client.key",
    "PGSSLMAXPROTOCOLVERSION": "TLSv1.3",
    "PGSSLMINPROTOCOLVERSION": "TLSv1.3",
    "PGSSLNEGOTIATION": "direct",
    "PGSSLSNI": "0",
    "PGSYSCONFDIR": "/nowhere",
    "PGTARGETSESSIONATTRS": "standby",
    "PGTZ": "Asia/Tokyo",
}
# These get quotes, which ``docker run --env-file`` keeps.
QUOTED = (
    "DATABRICKS_CLIENT_ID",
    "DATABRICKS_CLIENT_SECRET",
    "ENDPOINT_NAME",
    "PGHOST",
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "LAKEBASE_HOSTADDR",
)


@pytest.fixture
def database(local):
    """Yield the name of an empty database, which the service principal owns."""
    with new_database(local) as name:
        yield name


@pytest.fixture
def unreadable_home(tmp_path, monkeypatch):
    """Set a HOME in which no file can be read, even by root."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    monkeypatch.setenv("HOME", str(loop))


@pytest.fixture
def hostile(local, unreadable_home, monkeypatch):
    """Set variables that other programs, shells and containers leave behind."""
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in QUOTED:
        monkeypatch.setenv(name, f'"{local.env[name]}"')
    host = local.env["DATABRICKS_HOST"]
    monkeypatch.setenv("DATABRICKS_HOST", f"'{host}/browse?o=1234567890'")
    forget_credentials()


@pytest.fixture(autouse=True)
def environment(request):
    """Set up the environment that `pytest_generate_tests` has chosen."""
    if getattr(request, "param", "plain") == "hostile":
        request.getfixturevalue("hostile")


def pytest_generate_tests(metafunc):
    """Run each test that is marked *every_environment* in both environments."""
    if metafunc.definition.get_closest_marker("every_environment"):
        metafunc.parametrize("environment", ["plain", "hostile"], indirect=True)

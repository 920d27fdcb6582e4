"""Direct TLS and the one root certificate: when they are used, and when they fail."""

import os
from pathlib import Path

import certifi
import psycopg
import pytest

from django_lakebase.config import libpq
from django_lakebase.connect import tls
from django_lakebase.exceptions import LakebaseError
from tests.helpers.engine_threads import join_threads
from tests.helpers.queries import fetch_value

pytestmark = pytest.mark.skipif(
    not libpq.has_direct_tls(), reason="direct TLS requires libpq 17"
)

MODES = ["reject", "reset", "silent", "no-alpn", "close"]


@pytest.fixture(autouse=True)
def servers(local):
    """Forget what other tests have learned about the server."""
    tls.reset()
    yield
    join_threads("lakebase-tls")
    tls.reset()


@pytest.fixture
def bundle(local, tmp_path, monkeypatch):
    """Return a file of public authorities that contains both local ones."""
    path = tmp_path / "bundle.pem"
    files = certifi.where(), local.facts["ca_bundle"]
    path.write_text("".join(Path(file).read_text() for file in files))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.delenv("PGSSLMODE")
    monkeypatch.delenv("PGSSLROOTCERT")
    return str(path)


def reconnect(wrapper):
    """Open a new connection; return its parameters of TLS."""
    wrapper.close()
    assert fetch_value(wrapper, "SELECT 1") == 1
    given = wrapper.connection.info.get_parameters()
    # The probe has ended before the next connection.
    join_threads("lakebase-tls")
    return given.get("sslnegotiation", "postgres"), given.get("sslrootcert")


def learn(wrapper):
    """Open two connections: the second one starts the probe."""
    return [reconnect(wrapper)[0] for _ in range(2)]


def test_third_connection_uses_direct_tls(new_wrapper, local):
    """The handshake of the probe is not a login."""
    wrapper = new_wrapper()

    assert learn(wrapper) == ["postgres", "postgres"]
    assert reconnect(wrapper)[0] == "direct"

    counters = local.fetch_counters()
    assert (counters["logins"], counters["direct_logins"]) == (3, 1)


def test_unverified_and_native_connections_use_direct_tls(
    new_wrapper, local, monkeypatch
):
    monkeypatch.setenv("PGSSLMODE", "require")
    facts = local.facts
    native = {
        "HOST": facts["host"],
        "USER": facts["native_user"],
        "PASSWORD": facts["native_password"],
        "OPTIONS": {"hostaddr": facts["hostaddr"]},
    }
    for settings in ({}, native):
        wrapper = new_wrapper(**settings)

        learn(wrapper)

        assert reconnect(wrapper)[0] == "direct"


@pytest.mark.parametrize(("chosen", "direct"), [("direct", 2), ("postgres", 0)])
def test_chosen_negotiation_applies_from_the_first_connection(
    new_wrapper, local, chosen, direct
):
    wrapper = new_wrapper(OPTIONS={"sslnegotiation": chosen})

    assert learn(wrapper) == [chosen, chosen]
    assert local.fetch_counters()["direct_logins"] == direct


def test_variable_of_another_program_does_not_choose(new_wrapper, local, monkeypatch):
    """Direct TLS fails with servers that do not support it."""
    monkeypatch.setenv("PGSSLNEGOTIATION", "direct")

    fetch_value(new_wrapper(), "SELECT 1")

    assert local.fetch_counters()["direct_logins"] == 0


def test_connections_of_a_pool_use_direct_tls(new_wrapper, local):
    wrapper = new_wrapper(OPTIONS={"pool": {"min_size": 0, "max_size": 1}})
    learned = []
    for _ in range(3):
        assert fetch_value(wrapper, "SELECT 1") == 1
        parameters = wrapper.connection.info.get_parameters()
        learned.append(parameters.get("sslnegotiation"))
        # A closed connection is replaced when it is returned.
        wrapper.connection.close()
        wrapper.close()
        join_threads("lakebase-tls")

    assert learned == [None, None, "direct"]


@pytest.mark.parametrize("mode", MODES)
def test_server_without_direct_tls_is_recognised(new_wrapper, local, mode, monkeypatch):
    """No connection is slower: the probe waits in the background."""
    monkeypatch.setattr(tls, "PROBE_TIMEOUT", 0.3)
    wrapper = new_wrapper()
    with local.fault("direct-tls", mode=mode):
        learn(wrapper)
        # The server agrees on the protocol in mode "close": only libpq notices.
        assert reconnect(wrapper)[0] == "postgres"


@pytest.mark.parametrize("mode", MODES)
def test_no_login_fails_because_of_direct_tls(new_wrapper, local, mode):
    """Even if the probe was wrong; it is tried once, and never again."""
    wrapper = new_wrapper()
    learn(wrapper)
    with local.fault("direct-tls", mode=mode):
        assert reconnect(wrapper)[0] == "postgres"

    assert reconnect(wrapper)[0] == "postgres"


def test_rejected_login_is_not_repeated_without_direct_tls(new_wrapper, local):
    """The server has answered, so its message counts."""
    wrapper = new_wrapper()
    learn(wrapper)
    local.reset_counters()
    with (
        local.fault("ip-blocked", scope="login"),
        pytest.raises(LakebaseError) as caught,
    ):
        reconnect(wrapper)

    assert caught.value.failure_id == "address-rejected"
    assert local.fetch_counters()["rejections"] == 1
    assert reconnect(wrapper)[0] == "direct"


def test_timeout_without_direct_tls_is_not_repeated(
    new_wrapper, local, bundle, monkeypatch
):
    """The root certificate is not the reason, and the time limit would be doubled."""
    options = {"sslnegotiation": "postgres", "connect_budget": 0.1}
    wrapper = new_wrapper(OPTIONS=options)
    learn(wrapper)
    reconnect(wrapper)
    used = []

    def time_out(**params):
        used.append(params["sslrootcert"])
        raise psycopg.errors.ConnectionTimeout("connection timeout expired")

    with monkeypatch.context() as changed:
        changed.setattr(psycopg, "connect", time_out)
        with pytest.raises(LakebaseError):
            reconnect(wrapper)

    assert used
    assert bundle not in used


def test_outage_does_not_end_direct_tls(new_wrapper, local, monkeypatch):
    """The attempts without it fail too."""
    wrapper = new_wrapper(OPTIONS={"connect_budget": 0.1})
    learn(wrapper)

    def refuse(**params):
        raise psycopg.OperationalError("connection refused")

    with monkeypatch.context() as changed:
        changed.setattr(psycopg, "connect", refuse)
        with pytest.raises(LakebaseError):
            reconnect(wrapper)

    assert reconnect(wrapper)[0] == "direct"


def test_slow_server_does_not_end_direct_tls(new_wrapper, local):
    """An endpoint that wakes takes longer than the limit for direct TLS."""
    wrapper = new_wrapper()
    learn(wrapper)
    wrapper.close()
    with local.fault("suspend", wake_seconds=tls.DIRECT_TIMEOUT * 2.5):
        assert reconnect(wrapper)[0] == "postgres"

    # The next connection shows that the server is fast again.
    assert reconnect(wrapper)[0] == "postgres"
    assert reconnect(wrapper)[0] == "direct"


def test_suspended_endpoint_gets_one_attempt_with_direct_tls(
    new_wrapper, local, monkeypatch
):
    """Each attempt may wait at the server after its client has gone."""
    wrapper = new_wrapper(OPTIONS={"connect_budget": tls.DIRECT_TIMEOUT + 0.5})
    learn(wrapper)
    wrapper.close()
    used, connect = [], psycopg.connect

    def record(**params):
        used.append(params["sslnegotiation"])
        return connect(**params)

    monkeypatch.setattr(psycopg, "connect", record)
    with local.fault("suspend", wake_seconds=60):
        for _ in range(2):
            with pytest.raises(LakebaseError):
                reconnect(wrapper)

    assert used.count("direct") == 1


def test_third_connection_reads_one_root(new_wrapper, local, bundle):
    wrapper = new_wrapper()

    assert reconnect(wrapper)[1] == bundle
    reconnect(wrapper)
    _, path = reconnect(wrapper)

    assert Path(path).read_text().strip() == (
        Path(local.facts["ca_file"]).read_text().strip()
    )


def test_new_authority_is_learned_without_a_failed_login(new_wrapper, local, bundle):
    wrapper = new_wrapper()
    learn(wrapper)
    reconnect(wrapper)
    with local.fault("new-authority"):
        assert reconnect(wrapper) == ("postgres", bundle)
        reconnect(wrapper)
        negotiation, path = reconnect(wrapper)

        assert negotiation == "direct"
        learned = Path(path).read_text()
        assert learned != Path(local.facts["ca_file"]).read_text()
        assert learned in Path(local.facts["ca_bundle"]).read_text()


def test_learned_root_does_not_weaken_verification(new_wrapper, local, bundle):
    """A certificate that the bundle no longer covers is rejected, as before."""
    wrapper = new_wrapper()
    learn(wrapper)
    reconnect(wrapper)
    Path(bundle).write_text(Path(local.facts["ca_file"]).read_text())
    with local.fault("new-authority"), pytest.raises(LakebaseError) as caught:
        reconnect(wrapper)

    assert caught.value.failure_id == "certificate-not-verified"


def test_root_that_was_removed_from_the_bundle_is_not_trusted(
    new_wrapper, local, bundle
):
    """The process had learned that the server's chain ends in it."""
    wrapper = new_wrapper()
    learn(wrapper)
    reconnect(wrapper)
    Path(bundle).write_text(Path(certifi.where()).read_text())
    os.utime(bundle, (1, 1))  # The clock of the file system may be coarse.

    with pytest.raises(LakebaseError) as caught:
        reconnect(wrapper)

    assert caught.value.failure_id == "certificate-not-verified"


def test_other_libraries_get_parameters_that_always_work(new_wrapper, local, bundle):
    """They have no second attempt."""
    wrapper = new_wrapper()
    learn(wrapper)
    reconnect(wrapper)

    params = wrapper.get_connection_params()

    assert (params["sslnegotiation"], params["sslrootcert"]) == ("postgres", bundle)

"""Tests of Django's suite whose result differs by design, with the reasons."""

EXPECTED_DIFFERENCES = {
    "backends.postgresql.tests.Tests.test_bypass_timezone_configuration": (
        "the engine sends the time zone in the startup packet, so RESET TIMEZONE "
        "restores Django's time zone instead of the server's, and no query is needed"
    ),
    "backends.postgresql.tests.Tests.test_connect_pool": (
        "if the pool is exhausted, the engine raises a LakebaseError that names the "
        "alias and the setting; its cause is psycopg_pool's PoolTimeout"
    ),
    "backends.postgresql.tests.Tests.test_connect_role": (
        "if the role cannot be assumed, the engine raises a LakebaseError with a hint, "
        "which quotes psycopg's error and has it as its cause"
    ),
}

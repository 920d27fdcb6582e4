"""The tests that end differently by design, and why."""

DESIGNED = {
    "backends.postgresql.tests.Tests.test_bypass_timezone_configuration": (
        "the time zone travels in the startup packet, so RESET TIMEZONE leads back to "
        "Django's time zone and not to the server's, and nothing is left to set"
    ),
    "backends.postgresql.tests.Tests.test_connect_pool": (
        "a pool that is used up is a LakebaseError that names alias and setting; "
        "psycopg_pool's PoolTimeout is its cause"
    ),
    "backends.postgresql.tests.Tests.test_connect_role": (
        "a role that cannot be assumed is a LakebaseError with its mend; psycopg's "
        "error is its cause, and its text is quoted"
    ),
}

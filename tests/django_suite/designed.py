"""The tests that end differently by design, and why."""

DESIGNED = {
    "backends.postgresql.tests.Tests.test_bypass_timezone_configuration": (
        "the time zone travels in the startup packet, so RESET TIMEZONE leads back to "
        "Django's time zone and not to the server's, and nothing is left to set"
    ),
}

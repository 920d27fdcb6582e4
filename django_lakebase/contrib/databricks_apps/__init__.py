"""
Django on Databricks Apps: sign-in from the proxy's headers, and settings for the proxy.

This module is imported by settings, so it imports nothing of Django.
"""

import os
from typing import TypedDict
from urllib.parse import urlsplit

__all__ = ["ProxySettings", "get_proxy_settings", "is_databricks_app"]

# The platform sets both in each app.
PLATFORM_VARIABLES = ("DATABRICKS_APP_NAME", "DATABRICKS_APP_PORT")


class ProxySettings(TypedDict):
    """Django's settings that depend on the proxy."""

    ALLOWED_HOSTS: list[str]
    CSRF_TRUSTED_ORIGINS: list[str]
    CSRF_COOKIE_SECURE: bool
    SECURE_PROXY_SSL_HEADER: tuple[str, str] | None
    SESSION_COOKIE_SECURE: bool
    USE_X_FORWARDED_HOST: bool


def is_databricks_app() -> bool:
    """Return whether this process is a Databricks App, behind the platform's proxy."""
    return all(os.environ.get(name) for name in PLATFORM_VARIABLES)


def get_proxy_settings() -> ProxySettings:
    """
    Return the settings for the platform's proxy, or Django's defaults elsewhere.

    The keys are the same in both cases. DATABRICKS_APP_URL names the host.
    """
    if not is_databricks_app():
        return {
            "ALLOWED_HOSTS": [],
            "CSRF_TRUSTED_ORIGINS": [],
            "CSRF_COOKIE_SECURE": False,
            "SECURE_PROXY_SSL_HEADER": None,
            "SESSION_COOKIE_SECURE": False,
            "USE_X_FORWARDED_HOST": False,
        }
    url = os.environ.get("DATABRICKS_APP_URL", "").strip()
    parts = urlsplit(url if "://" in url or not url else f"https://{url}")
    # A browser does not send secure cookies to the emulator's proxy, which has no TLS.
    is_secure = parts.scheme != "http"
    return {
        "ALLOWED_HOSTS": [parts.hostname or ".databricksapps.com"],
        # Never a wildcard: an app of another customer has the same domain.
        "CSRF_TRUSTED_ORIGINS": (
            [f"{parts.scheme}://{parts.netloc.lower()}"] if parts.hostname else []
        ),
        "CSRF_COOKIE_SECURE": is_secure,
        "SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https"),
        "SESSION_COOKIE_SECURE": is_secure,
        "USE_X_FORWARDED_HOST": True,
    }

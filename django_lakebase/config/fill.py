"""
Filling of settings: the environment's values in the fields that the project left empty.

Django reads them in ``settings.DATABASES[alias]``: for the name and signature of the
test database, and for dbshell. A filled value has the type `Filled`, which
distinguishes it from a value that the project set.
"""

from collections.abc import Mapping
from typing import Any

from .sources import Filled, Sources, converted


def fill_settings(
    settings_dict: dict[str, Any],
    alias: str,
    environ: Mapping[str, str] | None = None,
) -> None:
    """
    Fill the empty fields of *settings_dict* from *environ*, and convert texts.

    Filling again changes nothing. Never fills a password, and validates nothing.
    """
    sources = Sources(settings_dict, alias, environ)
    if settings_dict.get("OPTIONS") is None:
        settings_dict["OPTIONS"] = {}
    options = settings_dict["OPTIONS"]
    if isinstance(options, dict):
        for key in [key for key, value in options.items() if value is None]:
            # The project used os.environ.get() for a variable that is not set.
            del options[key]
        options.update(converted(options))
    settings_dict.update(converted(settings_dict))
    for key in ("NAME", "USER", "HOST", "PORT"):
        if key != "NAME" or not sources.is_maintenance:
            own, default = sources.setting(key), sources.default(key)
            settings_dict[key] = own.text or Filled(default.text)

"""Settings of a Wagtail site."""

from tools.packages.base_settings import *

INSTALLED_APPS = [
    "wagtail.contrib.forms",
    "wagtail.contrib.redirects",
    "wagtail.contrib.settings",
    "wagtail.embeds",
    "wagtail.sites",
    "wagtail.users",
    "wagtail.snippets",
    "wagtail.documents",
    "wagtail.images",
    "wagtail.search",
    "wagtail.admin",
    "wagtail",
    "modelcluster",
    "taggit",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    *INSTALLED_APPS,
    "tools.packages.wagtail.site",
]
MIDDLEWARE += ["wagtail.contrib.redirects.middleware.RedirectMiddleware"]
ROOT_URLCONF = "tools.packages.wagtail.urls"
WAGTAIL_SITE_NAME = "Example site"
WAGTAILADMIN_BASE_URL = "http://localhost"
STATIC_URL = "static/"
DATABASES = {
    "default": {
        "ENGINE": "django_lakebase",
        "OPTIONS": {"pool": {"min_size": 1, "max_size": 4}},
    }
}
WAGTAILSEARCH_BACKENDS = {
    "default": {
        "BACKEND": "wagtail.search.backends.database",
        "SEARCH_CONFIG": "english",
    }
}

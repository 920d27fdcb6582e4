"""Settings with a schema for each tenant, on top of the engine with a pool."""

from tools.packages.base_settings import *

SHARED_APPS = [
    "django_tenants",
    "tools.packages.django_tenants.customers",
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django_lakebase",
]
TENANT_APPS = ["django.contrib.contenttypes", "example_project.notes"]
INSTALLED_APPS = [*SHARED_APPS, "example_project.notes"]
TENANT_MODEL = "customers.Customer"
TENANT_DOMAIN_MODEL = "customers.Domain"
DATABASES = {
    "default": {
        "ENGINE": "django_tenants.postgresql_backend",
        "OPTIONS": {"pool": {"min_size": 1, "max_size": 2}},
    }
}
ORIGINAL_BACKEND = "django_lakebase"
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
MIDDLEWARE = ["django_tenants.middleware.main.TenantMainMiddleware"]
ROOT_URLCONF = "tools.packages.django_tenants.urls"
ALLOWED_HOSTS = [".example.com"]

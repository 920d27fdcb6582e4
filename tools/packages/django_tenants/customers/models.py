"""The tenants and their host names."""

from django.db import models
from django_tenants.models import DomainMixin, TenantMixin


class Customer(TenantMixin):
    """A tenant; deleting it also drops its schema."""

    name = models.CharField(max_length=50)
    auto_drop_schema = True


class Domain(DomainMixin):
    """A tenant's host name."""

"""The URL that a load balancer requests."""

from django.urls import path
from health_check.views import HealthCheckView

urlpatterns = [
    path("health/", HealthCheckView.as_view(checks=["health_check.checks.Database"]))
]

"""What the project tests for itself, by ``manage.py test``."""

from django.contrib.gis.geos import Point
from django.test import TestCase

from tests.projects.geo.models import Place


class PlaceTests(TestCase):
    """The test database can do what the project's own can."""

    def test_a_point_comes_back(self):
        """PostGIS is in the test database, too."""
        Place.objects.create(name="Bern", point=Point(7.45, 46.95))

        assert Place.objects.get().point.coords == (7.45, 46.95)

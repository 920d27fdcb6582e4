"""The project's own tests, run by ``manage.py test``."""

from django.contrib.gis.geos import Point
from django.test import TestCase

from tests.projects.geo.models import Place


class PlaceTests(TestCase):
    """The test database has the features of the real one."""

    def test_a_point_comes_back(self):
        """PostGIS is installed in the test database."""
        Place.objects.create(name="Bern", point=Point(7.45, 46.95))

        assert Place.objects.get().point.coords == (7.45, 46.95)

"""The test project's addresses, and the toolbar's."""

from debug_toolbar.toolbar import debug_toolbar_urls

from tests.projects.app.urls import urlpatterns as own

urlpatterns = [*own, *debug_toolbar_urls()]

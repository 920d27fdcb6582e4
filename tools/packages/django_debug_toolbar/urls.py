"""The URLs of the notes and of the toolbar."""

from debug_toolbar.toolbar import debug_toolbar_urls

from tools.packages.notes.urls import urlpatterns as notes

urlpatterns = [*notes, *debug_toolbar_urls()]

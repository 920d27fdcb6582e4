"""URLs: the page, its facts and timeline, and the admin."""

from django.contrib import admin
from django.urls import path

from .notes import views

urlpatterns = [
    path("", views.page, name="page"),
    path("facts.json", views.facts, name="facts"),
    path("timeline", views.timeline, name="timeline"),
    path("admin/", admin.site.urls),
]

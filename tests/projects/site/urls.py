"""The URLs of the site."""

from django.urls import path

from . import views

urlpatterns = [
    path("facts/", views.facts),
    path("async/", views.facts_async),
    path("pong/", views.pong),
    path("wait/", views.wait),
]

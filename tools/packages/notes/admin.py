"""The admin of the model."""

from django.contrib import admin

from .models import Note

admin.site.register(Note)

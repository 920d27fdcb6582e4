"""The API of the notes."""

from django.urls import include, path
from rest_framework import routers, serializers, viewsets

from tools.packages.notes.models import Note


class NoteSerializer(serializers.ModelSerializer):
    """A note as JSON."""

    class Meta:
        model = Note
        fields = ("id", "text")


class NoteViewSet(viewsets.ModelViewSet):
    """The operations on notes."""

    queryset = Note.objects.order_by("pk")
    serializer_class = NoteSerializer


router = routers.DefaultRouter()
router.register("notes", NoteViewSet)
urlpatterns = [
    path("api/", include(router.urls)),
    path("api-auth/", include("rest_framework.urls")),
]

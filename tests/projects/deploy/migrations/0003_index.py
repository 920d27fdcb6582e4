from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("deploy", "0002_gate")]
    operations = [
        AddIndexConcurrently("Item", models.Index(fields=["name"], name="item_name"))
    ]

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("deploy", "0001_initial")]
    # Waits as long as a test holds this lock.
    operations = [migrations.RunSQL("SELECT pg_advisory_xact_lock(1)", "")]

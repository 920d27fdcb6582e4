from django.db import migrations


class Migration(migrations.Migration):
    replaces = [("deploy", "0005_note")]
    dependencies = [("deploy", "0004_order")]
    operations = [migrations.RunSQL("COMMENT ON TABLE deploy_order IS 'a note'", "")]

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("deploy", "0004_order")]
    operations = [migrations.RunSQL("COMMENT ON TABLE deploy_order IS 'a note'", "")]

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [
        migrations.AddField("Order", "number", models.IntegerField(default=0)),
        migrations.AlterField(
            "Order", "note", models.CharField(max_length=20, db_index=True)
        ),
    ]

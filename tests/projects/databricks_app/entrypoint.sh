#!/usr/bin/env bash
set -euo pipefail
python manage.py collectstatic --noinput --verbosity=0
python manage.py create_schema
python manage.py migrate --verbosity=0
exec gunicorn wsgi --bind "127.0.0.1:$DATABRICKS_APP_PORT" --workers 2 --threads 2

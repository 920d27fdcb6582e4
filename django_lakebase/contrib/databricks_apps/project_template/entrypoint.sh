#!/usr/bin/env bash
# Starts the app on Databricks Apps, and with: lakebase-local run --as-app
set -euo pipefail
cd "$(dirname "$0")"

python manage.py collectstatic --noinput --verbosity=0
python manage.py lakebase_migrate --wait 60 --lock-timeout 5
# With exec, gunicorn gets the platform's SIGTERM.
exec gunicorn

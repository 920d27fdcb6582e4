#!/usr/bin/env bash
# Starts the example on Databricks Apps, and with: lakebase-local run --as-app
set -euo pipefail
cd "$(dirname "$0")"

# The platform copies this folder under another name, but it is a Python package.
mkdir -p .packages
ln -sfn ../ .packages/example_project
export PYTHONPATH="$PWD/.packages" DJANGO_SETTINGS_MODULE=example_project.settings DEBUG=0

python -m django collectstatic --noinput --verbosity=0
python -m django lakebase_migrate --wait 60 --lock-timeout 5
# The platform's proxy reaches the app from outside; the local Lakebase's does not.
host=0.0.0.0
if [ -n "${LAKEBASE_LOCAL_URL:-}" ]; then host=127.0.0.1; fi
# With exec, gunicorn gets the platform's SIGTERM.
exec gunicorn example_project.wsgi --bind "$host:$DATABRICKS_APP_PORT" \
    --threads 4 --timeout 120 --graceful-timeout 10

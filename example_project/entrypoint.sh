#!/usr/bin/env bash
# Starts the example on Databricks Apps, and with: lakebase-local run --as-app
set -euo pipefail
cd "$(dirname "$0")"

# This folder is the Python package example_project, but the platform copies it under
# another name.
mkdir -p .packages
ln -sfn ../ .packages/example_project
export PYTHONPATH="$PWD/.packages" DJANGO_SETTINGS_MODULE=example_project.settings DEBUG=0

python -m django collectstatic --noinput --verbosity=0
python -m django lakebase_migrate --wait 60 --lock-timeout 5
# The platform's proxy connects from another machine, the local Lakebase's from this one.
host=0.0.0.0
if [ -n "${LAKEBASE_LOCAL_URL:-}" ]; then host=127.0.0.1; fi
# With exec, gunicorn gets the platform's SIGTERM.
exec gunicorn example_project.wsgi --bind "$host:$DATABRICKS_APP_PORT" \
    --threads 4 --timeout 120 --graceful-timeout 10

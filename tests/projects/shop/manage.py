#!/usr/bin/env python
"""Run a Django command of the shop."""

import multiprocessing
import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    # The defaults of macOS (spawn) and Python 3.14 (forkserver).
    if method := os.environ.get("SHOP_START_METHOD"):
        multiprocessing.set_start_method(method)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
    execute_from_command_line(sys.argv)

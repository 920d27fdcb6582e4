"""A local Lakebase for development and tests: an emulator, not the service."""

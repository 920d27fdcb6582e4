"""Optional Django apps, which do not need the database engine."""

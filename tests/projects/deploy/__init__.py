"""A project that migrates when it starts, in several processes."""

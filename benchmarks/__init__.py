"""Benchmarks of the engine against Django's own backend and other connection pools."""

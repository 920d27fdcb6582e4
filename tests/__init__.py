"""A package by intent: others install one called tests, which would win."""

"""An app whose migration creates extensions."""

"""An app with a page and the command that creates the schema."""

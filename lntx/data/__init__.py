"""Rows: synthetic ones from known weights, or a table of a user's own; written and read as streams."""

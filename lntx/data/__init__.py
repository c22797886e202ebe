"""Rows: synthetic ones from known weights, or a table of the user; written and read as streams."""

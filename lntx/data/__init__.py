"""Rows: synthetic ones from known weights, or a table of the user; written and read as streams.

Begin with `dataset`, what every stage reads; `synthetic` draws rows, `importing` reads a user's table. Learns nothing.
"""

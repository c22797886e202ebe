"""Sums, products and solutions that round nothing, or to twice the digits. Knows no files and no torch."""

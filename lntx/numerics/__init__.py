"""Sums, products and solutions without rounding, or with twice the digits. Knows no files."""

"""Sums, products and solutions without rounding, or with twice the digits. Knows no files.

Begin with `exact_matrix`: products without rounding; `gram` and `normal_equations` stand on it.
"""

"""Many trainings over a grid of settings, small ones batched in one tensor.

Begin with `sweep`; `grid` makes the settings, `trials` trains them, `vectorized` trains small ones side by side.
"""

"""Many trainings over a grid of settings, small ones batched in one tensor."""

"""Many trainings over a grid of settings, small ones side by side in one tensor."""

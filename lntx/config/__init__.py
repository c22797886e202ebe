"""The configuration of a run: the sections with their validation rules, and the layers that are merged."""

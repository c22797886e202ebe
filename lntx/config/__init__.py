"""What a run is asked to do: the sections with their rules, and the layers that they come from."""

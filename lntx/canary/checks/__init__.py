"""Checks of a canary against the known answer: the path of the weights, the training, the exports."""

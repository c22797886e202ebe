"""Train `nn.Linear` by SGD on rows: automatic hyperparameters, the loop, and the result files."""

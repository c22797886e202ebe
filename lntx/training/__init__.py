"""`nn.Linear` trained by SGD on rows: settings from the data, the loop, and what it leaves."""

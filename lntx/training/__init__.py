"""Train `nn.Linear` by SGD on rows: automatic hyperparameters, the loop, and the result files.

Begin with `fit`. What a training is compared with is in `evaluation`, and shares no sums with it.
"""

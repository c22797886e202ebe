"""Compare the learned weights with the exact solution and the truth: figures, verdict and reason."""

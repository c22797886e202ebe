"""The expected result of each epoch: the closed form of gradient descent, in independent arithmetic."""

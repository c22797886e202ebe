"""Where each epoch should have been: the closed form of gradient descent, in other arithmetic."""

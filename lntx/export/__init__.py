"""Export a model to files of several formats; a separate process reads each file back."""

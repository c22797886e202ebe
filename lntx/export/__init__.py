"""A model as files of several formats, each read back by a process that has never seen it."""

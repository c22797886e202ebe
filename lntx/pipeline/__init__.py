"""The table of stages, and the runner that obtains each result: from the cache, or by computing and publishing it."""

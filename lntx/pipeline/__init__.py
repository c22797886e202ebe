"""The stages in one table, and the runner that obtains each: looks it up, or computes and publishes it."""

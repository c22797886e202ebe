"""Files by content, records by key, locks, and what is ours: the one cache."""

"""The cache: files stored by content, records by key, locks, and the journal of our files."""

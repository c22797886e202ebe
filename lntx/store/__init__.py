"""The cache: files stored by content, records by key, locks, and the journal of our files.

Begin with `store`; `key` says what determines a result, `sealed` how a file says that it is whole. Knows no run.
"""

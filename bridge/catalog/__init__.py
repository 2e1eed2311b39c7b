"""The catalog in memory, mostly pure: what a source said becomes a partition, partitions become views that readers wait on.

Nothing here does I/O, starts a task or looks at a clock: time is an argument.
"""

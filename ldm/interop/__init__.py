"""Recorded data in the forms of other libraries, and theirs in ours. Their packages are imported
where they are used: the extra `interop`."""

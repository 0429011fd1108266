"""Seeded mutations of every kind of file that a run leaves, checkpoints apart, and their outcome.

python -m tests.fuzz --mutations 1000 --seed 0     prints a table; fails where one is not told

A mutated file must end in an LdmError that names it, in the same result as before, or in another
one with a line that names the file. Never in a traceback, silently in another result, or in more
than `outcomes.LIMIT` bytes of memory. Where the checksum is made right again ("sealed again"),
whoever did that may say what he likes: only tracebacks and memory count. A recipe is a person's own
words: another recipe is no fault, but it must be one.
"""

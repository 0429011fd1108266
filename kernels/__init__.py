"""The model's operations, a folder each: `reference.py` is the definition, `__init__.py` picks.

`reference.py` says what an operation computes, in fp64 if asked to, and is what tests hold every
other file against. `plain.py` is what plain PyTorch runs where nothing faster is known, `cpu.py`
what CPUs run, `fused.py` Triton. Operations call each other through their dispatchers alone, so
that a new version reaches every place.

The letters of shapes (`x_ND`) mean the same in every file: CONTRIBUTING.md has the legend.
"""

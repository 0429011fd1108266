"""The model's operations. Each is a folder: `naive.py` is plain PyTorch, `__init__.py` picks.

The naive version is the definition: any other version of an operation is tested against it.
"""

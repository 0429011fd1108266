"""Compiled parts (Cython, numpy only); imported as `ldm._native`."""

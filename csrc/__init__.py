"""Compiled parts (Cython, numpy only); installed as `ldm._native`."""

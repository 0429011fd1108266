"""Builds the Cython extensions; everything else about the package is in pyproject.toml.

`kernels/`, `csrc/`, `bench/` and `zoo/` are top-level folders of the repository. Committed links
put them inside `ldm` (a public package called `kernels` exists), so the tree imports as it
installs; `bench` stays out of the wheel. CFLAGS, where set, says how to compile the extensions.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

flags = [] if "CFLAGS" in os.environ else ["-O3"]
native = [
    Extension(f"ldm._native.{path.stem}", [str(path)], extra_compile_args=flags)
    for path in sorted(Path("ldm/_native").glob("*.pyx"))
]

setup(
    packages=find_packages(include=["ldm", "ldm.*"], exclude=["ldm.bench", "ldm.bench.*"]),
    include_package_data=False,
    package_data={
        "ldm": [
            "py.typed",
            "recipes/*.toml",
            "envs/catalogue/*.toml",
            "envs/digests.json",
            "envs/locks/*.txt",
            "envs/locks/builders/*.txt",
            "evaluate/*.html",
            "evaluate/*.js",
            "reference/*.toml",
            "reference/experts/*.toml",
            "zoo/*/*.json",
            "zoo/*/*.safetensors",
            "zoo/model/*",
        ],
        "ldm.kernels": ["*/*.json"],
        "ldm._native": ["*.pyx", "*.pyi"],
    },
    ext_modules=cythonize(native, language_level=3),
)

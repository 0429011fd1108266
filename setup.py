"""Builds the Cython extensions; everything else about the package is in pyproject.toml.

`kernels/` and `csrc/` are top-level folders of the repository and install inside the `ldm` package,
because a public package called `kernels` exists.
"""

import os

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

INSIDE = {"ldm.kernels": "kernels", "ldm.bench": "bench", "ldm._native": "csrc"}

packages = find_packages(include=["ldm", "ldm.*"])
for name, folder in INSIDE.items():
    packages += [name] + [f"{name}.{sub}" for sub in find_packages(folder)]

native = [
    Extension(f"ldm._native.{name[:-4]}", [f"csrc/{name}"], extra_compile_args=["-O3"])
    for name in sorted(os.listdir("csrc"))
    if name.endswith(".pyx")
]

setup(
    packages=packages,
    package_dir=INSIDE,
    package_data={
        "ldm": ["recipes/*.toml", "envs/catalogue/*.toml", "envs/locks/*.txt", "evaluate/*.html"],
        "ldm.kernels": ["*/*.json"],
        "ldm._native": ["*.pyx"],
    },
    ext_modules=cythonize(native, language_level=3),
)

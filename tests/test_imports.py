"""Who may import whom: CONTRIBUTING.md's table, held against the sources."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMON = {
    "ldm.errors",
    "ldm.config",
    "ldm.recipe_check",
    "ldm.run",
    "ldm.seeds",
    "ldm.parallel",
    "ldm.versions",
}
ENV_TYPES = {f"ldm.envs.{name}" for name in ("interface", "legal", "padding", "spaces", "spec")}

# part → the modules of ours that it may import; a name stands for itself and all below it
RULES = {
    "csrc": {"ldm._native"},
    "kernels": {"ldm.kernels", "ldm._native.layout"},
    "ldm/envs": COMMON | {"ldm.envs"},
    "ldm/data": COMMON | ENV_TYPES | {"ldm.data", "ldm._native"},
    "ldm/interop": COMMON | {"ldm.envs", "ldm.data", "ldm.interop"},
    "ldm/reference": COMMON | {"ldm.envs", "ldm.reference", "ldm.data"},
    "ldm/record": COMMON | {"ldm.envs", "ldm.reference", "ldm.data", "ldm.record"},
    "ldm/model": COMMON | {"ldm.model", "ldm.kernels", "ldm.data.batch"},
    "ldm/train": COMMON
    | {"ldm.train", "ldm.model", "ldm.kernels", "ldm.data", "ldm.policy.folder"}
    | {"ldm.envs.processes"},  # /proc and the standard library
    "ldm/plan": COMMON | {"ldm.plan", "ldm.train", "ldm.model", "ldm.kernels", "ldm.data.batch"},
    "ldm/policy": COMMON | ENV_TYPES | {"ldm.policy", "ldm.model", "ldm.data"},
    "ldm/evaluate": COMMON
    | {"ldm.evaluate", "ldm.policy", "ldm.envs", "ldm.reference", "ldm.data"},
}
SIMULATORS = {
    "envpool",
    "gymnasium",
    "gym",
    "mujoco",
    "metaworld",
    "minigrid",
    "nasim",
    "pyRDDLGym",
}


def imports(path: Path) -> set[str]:
    """The modules that a file imports anywhere, functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            package = (ROOT / node.module.replace(".", "/")).is_dir()
            found |= {f"{node.module}.{a.name}" for a in node.names} if package else {node.module}
    return found


def sources(part: str) -> list[Path]:
    return sorted((ROOT / part).rglob("*.py"))


def allowed(name: str, rules: set[str]) -> bool:
    return any(name == rule or name.startswith(rule + ".") for rule in rules)


@pytest.mark.parametrize("part", RULES)
def test_a_part_imports_only_what_it_may(part):
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources(part)
        for name in imports(path)
        if name.startswith("ldm.") and not allowed(name, RULES[part])
    }
    assert not wrong


@pytest.mark.parametrize(
    "part", ["ldm/train", "ldm/model", "ldm/data", "ldm/policy", "ldm/plan", "kernels"]
)
def test_gpu_side_never_imports_a_simulator(part):
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources(part)
        for name in imports(path)
        if name.split(".")[0] in SIMULATORS
    }
    assert not wrong


def test_workers_import_only_what_a_foreign_interpreter_has():
    ours = {"ldm.envs.periods"}  # of problems that are ours, which live in our own interpreter
    files = [ROOT / f"ldm/envs/{name}.py" for name in ("worker", "spaces", "padding")]
    files += sources("ldm/envs/adapters")
    wrong = {
        f"{path.name}: {name}"
        for path in files
        for name in imports(path)
        if name.split(".")[0] == "ldm" and name not in ours
    }
    assert not wrong


def test_the_command_loads_neither_torch_nor_a_simulator():
    code = "import ldm.cli, sys; print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not set(loaded.stdout.split()) & ({"torch", "triton", "numpy"} | SIMULATORS)


def test_acting_loads_no_compiler():
    """It takes 1.5 CPU seconds, of every process that acts."""
    code = "import ldm.policy, ldm.evaluate.run, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not set(loaded.stdout.split()) & {"torch._dynamo", "triton", "deepspeed"}

"""Which pointers a Triton kernel stores to, read off its source.

PyTorch finds out by itself what a kernel mutates, from the compiled form. Where that names more
than is stored to, Inductor copies the tensor in every call; where less, results are wrong.
"""

import ast
import inspect
import textwrap
from functools import cache


@cache  # a check of 200 batches asks for each launch
def stored(kernel) -> set[str]:
    """Parameters p_… of `kernel` that its body, or a function of Triton's that it calls, passes to
    `tl.store` as the address, or what it makes of them."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kernel.fn)))
    bases: dict[str, set[str]] = {n: {n} for n in kernel.arg_names if n.startswith("p_")}

    def pointers(node: ast.AST) -> set[str]:
        """Of an address: a load inside it gives an index, not a pointer to store to."""
        if isinstance(node, ast.Call):
            return set()
        if isinstance(node, ast.Name):
            return bases.get(node.id, set())
        return set().union(*map(pointers, ast.iter_child_nodes(node)))

    found: set[str] = set()
    for node in sorted(ast.walk(tree), key=lambda n: getattr(n, "lineno", 0)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if pointers(node.value):
                bases[node.targets[0].id] = pointers(node.value)
        elif isinstance(node, ast.Call):
            for address in _addresses(node, kernel.fn.__globals__):
                found |= pointers(address)
    return found


def _addresses(call: ast.Call, names: dict) -> list[ast.AST]:
    """Arguments of a call that are stored to."""
    if isinstance(call.func, ast.Attribute):
        return call.args[:1] if call.func.attr == "store" else []
    helper = names.get(_name(call.func))
    if not hasattr(helper, "arg_names"):  # no function of Triton's
        return []
    inside = stored(helper)
    return [x for x, name in zip(call.args, helper.arg_names, strict=False) if name in inside]


def _name(function: ast.AST) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")

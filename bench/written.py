"""Which pointers a Triton kernel stores to, read off its source.

PyTorch finds out by itself what a kernel mutates, from the compiled form. Where that names more
than is stored to, Inductor copies the tensor in every call; where less, results are wrong.
"""

import ast
import inspect
import textwrap


def stored(kernel) -> set[str]:
    """Parameters p_… of `kernel` that its body passes, or what it makes of them, as the first
    argument of a call whose name begins with `store`."""
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
        elif isinstance(node, ast.Call) and _name(node.func).startswith("store"):
            found |= pointers(node.args[0])
    return found


def _name(function: ast.AST) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")

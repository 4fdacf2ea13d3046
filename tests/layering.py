"""What a source file imports, and which names a package shows: the facts that `test_layering.py` holds to rules."""

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

Sources = Mapping[str, str]
"""Dotted module name ↦ its text; a package goes by its own name."""


def modules_of(folder: Path) -> dict[str, str]:
    """The modules below a folder that holds packages, by name."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    assert found, f"{folder} has no modules"
    return found


def nodes(tree: ast.AST, *, at_import_only: bool) -> Iterator[ast.AST]:
    """Every node, or only those that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if at_import_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if at_import_only and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from nodes(node, at_import_only=at_import_only)


def imports(source: str, *, at_import_only: bool = False) -> set[tuple[str, str | None]]:
    """(module, name) of each `from module import name`, (module, None) of each `import module`, also by string."""
    found: set[tuple[str, str | None]] = set()
    for node in nodes(ast.parse(source), at_import_only=at_import_only):
        if isinstance(node, ast.Import):
            found |= {(alias.name, None) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {(str(node.module), alias.name) for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found |= {(str(arg.value), None) for arg in node.args if isinstance(arg, ast.Constant)}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("late") and not at_import_only:
            places = [str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)]
            found |= {(place.partition(":")[0], place.partition(":")[2]) for place in places if ":" in place}
    return found


def imported(source: str, *, at_import_only: bool = False) -> set[str]:
    """The top-level names of what a module imports, without the standard library."""
    found = {module.partition(".")[0] for module, _ in imports(source, at_import_only=at_import_only)}
    return found - set(sys.stdlib_module_names)


def public_names(source: str) -> set[str]:
    """What `__all__` lists; nothing if there is none, as in a package that shows none of its modules."""
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "__all__":
            return set(ast.literal_eval(node.value))  # type: ignore[union-attr]
    return set()


def used(source: str) -> set[str]:
    """Dotted names of other packages' things that a module reaches for, such as gm_lab.analysis.lines."""
    tree, aliases, found = ast.parse(source), {}, set()
    for node in nodes(tree, at_import_only=False):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname or alias.name.partition(".")[0]: alias.name if alias.asname else
                        alias.name.partition(".")[0] for alias in node.names}  # fmt: skip
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    found |= {f"{module}.{name}" if name else module for module, name in imports(source)}
    for node in nodes(tree, at_import_only=False):
        if isinstance(node, ast.Attribute):
            root, _, rest = ast.unparse(node).partition(".")
            if root in aliases and all(part.isidentifier() for part in rest.split(".")):
                found.add(f"{aliases[root]}.{rest}")
    return found


def hidden(name: str, sources: Sources) -> bool:
    """Whether a dotted name leads through a module that does not show the next part.

    A module shows what its `__all__` lists; one that is no package and has no `__all__` all that begins with a letter.
    """
    module, *rest = name.split(".")
    for part in rest:
        if module not in sources:
            return False  # an attribute of a public thing
        shown, package = public_names(sources[module]), any(other.startswith(f"{module}.") for other in sources)
        if part not in shown and (shown or package or part.startswith("_")):
            return True
        module = f"{module}.{part}"
    return False


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """A circle of a graph, or nothing."""
    done: set[str] = set()

    def below(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for following in sorted(graph.get(node, ())):
            if found := below(following, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := below(node, []))), [])


def module_graph(sources: Sources, *, at_import_only: bool = False) -> dict[str, set[str]]:
    """Which of the modules imports which."""
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        targets = {
            f"{base}.{name}" if name and f"{base}.{name}" in sources else base
            for base, name in imports(source, at_import_only=at_import_only)
        }
        graph[module] = (targets & sources.keys()) - {module}
    return graph

"""The direction of the data: a module imports only from its left.  This reads the imports and keeps it so."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "xaitools"
ORDER = [
    {"errors", "types"},
    {"registry", "files", "locations", "stores"},
    {"data", "architectures"},
    {"adapters"},
    {"zoo"},
    {"targets"},
    {"attribution", "probes"},
    {"metrics"},
    {"training", "audit"},
    {"report"},
    {"demo", "serve"},
    {"cli"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
ONLY_IN = {"matplotlib": "report", "streamlit": "nothing in the package", "ray": "audit", "plotly": "nothing in the package"}


def imports(path: Path) -> set[str]:
    """Absolute names of what ``path`` imports anywhere, also inside functions."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    package = parts if path.name == "__init__.py" else parts[:-1]
    package = package[:-1] if package[-1] == "__init__" else package
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            found |= {module} | ({f"{module}.{alias.name}" for alias in node.names} if module == "xaitools" else set())
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name not in ("__init__.py", "__main__.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_its_left(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in RANK, f"{own} has no place in the order; give it one"
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "xaitools" and rest and rest[0] in RANK and rest[0] != own:
            assert RANK[rest[0]] < RANK[own], f"{path.name} of {own} imports {rest[0]}, which stands to its right or beside it"
        if top in ONLY_IN:
            assert own == ONLY_IN[top], f"{path.name} imports {top}, which belongs in {ONLY_IN[top]}"


def test_zennit_is_imported_inside_functions_only():
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert "zennit" not in ast.unparse(node), path


def test_public_names_are_these():
    import xaitools

    assert sorted(xaitools.__all__) == [
        "Activations", "Attribution", "AuditReport", "Decision", "Prediction", "ProbeResult", "Sample", "Target", "Trace", "XaiError",
        "__version__", "activations_figure", "audit", "check_model", "counterfactual_table", "evaluate", "explain", "explain_many",
        "figure", "ledger_figure", "load_dataset", "load_model", "panels_figure", "probe", "read_image", "repair", "save",
        "strongest_activations", "trace_figure", "wrap",
    ]  # fmt: skip
    assert all(getattr(xaitools, name) is not None for name in xaitools.__all__)

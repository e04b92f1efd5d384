"""Imports point one way; this reads the sources and holds the directions of docs/architecture.md."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOTS = {
    "mmekit": ROOT / "container",
    "mmekit_endpoint": ROOT / "endpoint",
    "mmekit_handlers": ROOT / "handlers",
    "mmekit_toolkit": ROOT / "toolkit",
}


#: Layer → what its modules must not import. A module belongs to the longest prefix that fits.
FORBIDDEN = {
    "mmekit": ["mmekit_toolkit", "mmekit_endpoint"],
    "mmekit.errors": ["mmekit", "mmekit_handlers"],
    "mmekit.config": [
        "mmekit.resolution",
        "mmekit.server",
        "mmekit.worker",
        "mmekit.http",
        "mmekit_handlers",
    ],
    "mmekit.archive": [
        "mmekit.server",
        "mmekit.worker",
        "mmekit.http",
        "mmekit.cli",
        "mmekit.config",
        "mmekit.artifact",
        "mmekit_handlers",
    ],
    "mmekit.artifact": ["mmekit.server", "mmekit.worker", "mmekit.http", "mmekit_handlers"],
    "mmekit.http": ["mmekit.server", "mmekit.worker", "mmekit.cli", "mmekit_handlers"],
    "mmekit.worker": ["mmekit.server", "mmekit.http", "mmekit.cli"],
    "mmekit.server": ["mmekit.cli", "mmekit_handlers"],
    "mmekit.engine": ["mmekit.server", "mmekit.http", "mmekit.cli"],
    # It speaks to containers as SageMaker does; what it shares with them are HTTP, archives,
    # errors, and what Linux says of processes.
    "mmekit_endpoint": [
        "mmekit.server",
        "mmekit.worker",
        "mmekit.engine",
        "mmekit.cli",
        "mmekit.config",
        "mmekit_handlers",
        "mmekit_toolkit",
    ],
    "mmekit_endpoint.client": ["mmekit", "mmekit_endpoint"],
    "mmekit_endpoint.fleet": [
        "mmekit.http",
        "mmekit_endpoint.api",
        "mmekit_endpoint.command",
        "mmekit_endpoint.service",
    ],
    "mmekit_endpoint.fleet.launchers": ["mmekit_endpoint.telemetry", "mmekit_endpoint.database"],
    "mmekit_endpoint.telemetry": ["mmekit.http", "mmekit_endpoint.api", "mmekit_endpoint.database"],
    "mmekit_endpoint.api": ["mmekit_endpoint.command", "mmekit_endpoint.service"],
    "mmekit_endpoint.api.control": [
        "mmekit_endpoint.api.runtime",
        "mmekit_endpoint.fleet.instance",
        "mmekit_endpoint.fleet.reconciler",
    ],
    "mmekit_handlers": ["mmekit.server", "mmekit.worker", "mmekit.http", "mmekit.cli", "mmekit.config"],
    "mmekit_toolkit": [
        "mmekit_endpoint",
        "mmekit.server",
        "mmekit.worker",
        "mmekit.http",
        "mmekit.cli",
        "mmekit_handlers",
    ],
    "mmekit_toolkit.errors": ["mmekit_toolkit"],
    "mmekit_toolkit.aws": [
        "mmekit_toolkit.archive",
        "mmekit_toolkit.contract",
        "mmekit_toolkit.deploy",
        "mmekit_toolkit.images",
        "mmekit_toolkit.operate",
    ],
    # They know archives and images, nothing of AWS but how a file is fetched from it.
    "mmekit_toolkit.archive": [
        "mmekit_toolkit.contract",
        "mmekit_toolkit.deploy",
        "mmekit_toolkit.iam",
        "mmekit_toolkit.operate",
    ],
    "mmekit_toolkit.contract": [
        "mmekit_toolkit.archive",
        "mmekit_toolkit.aws",
        "mmekit_toolkit.deploy",
        "mmekit_toolkit.iam",
        "mmekit_toolkit.operate",
    ],
    "mmekit_toolkit.images": ["mmekit_toolkit.contract", "mmekit_toolkit.iam", "mmekit_toolkit.operate"],
    "mmekit_toolkit.deploy": ["mmekit_toolkit.contract", "mmekit_toolkit.iam", "mmekit_toolkit.operate"],
    "mmekit_toolkit.operate": ["mmekit_toolkit.contract", "mmekit_toolkit.iam"],
    "mmekit_toolkit.iam": ["mmekit_toolkit.contract"],
}

#: In mmekit.server a module imports only those further down, and its equals; all may import the others.
SERVER_ORDER = [
    {"app"},
    {"connectors"},
    {"routes"},
    {"startup"},
    {"registry", "watch"},
    {"copies", "reloads"},
    {"residency"},
    {"clones"},
    {"choosing", "prometheus", "session"},
    {"access", "dispatcher", "host", "openapi", "parameters"},
    {"fleet", "memory", "model"},
    {"capacity", "usage", "workers"},
]

#: Never imported by what runs in the server process: no model code, no array library.
HEAVY = {"numpy", "pandas", "scipy", "sklearn", "torch", "xgboost", "joblib", "skops", "safetensors"}


def _module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    _module_name(path, root): path
    for package, root in ROOTS.items()
    for path in sorted((root / package).rglob("*.py"))
}


def _imports(name: str) -> set[str]:
    """Full names of the modules that ``name`` imports anywhere in its source."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno} imports relatively; siblings go by full name"
            module = node.module or ""
            for alias in node.names:
                full = f"{module}.{alias.name}"
                found.add(full if full in MODULES else module)
    return found


def _inside(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def test_there_are_sources() -> None:
    assert {"mmekit.errors", "mmekit.worker.messages", "mmekit_handlers.base"} <= MODULES.keys()


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_a_layer_imports_none_of_those_above_it(layer: str) -> None:
    wrong = [
        f"{name} imports {imported}"
        for name in MODULES
        if _inside(name, layer)
        for imported in _imports(name)
        for forbidden in FORBIDDEN[layer]
        if _inside(imported, forbidden)
    ]
    assert not wrong, "\n".join(wrong)


def test_inside_the_server_imports_go_from_app_down_to_what_imports_nothing_of_it() -> None:
    def level(name: str) -> int:
        short = name.removeprefix("mmekit.server.").split(".")[0]
        return next((i for i, names in enumerate(SERVER_ORDER) if short in names), len(SERVER_ORDER))

    wrong = [
        f"{name} imports {imported}"
        for name in MODULES
        if name.startswith("mmekit.server.")
        for imported in _imports(name)
        if imported.startswith("mmekit.server.") and level(imported) < level(name)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_server_and_the_worker_meet_only_in_the_messages() -> None:
    allowed = {"mmekit.worker.messages"}
    wrong = [
        f"{name} imports {imported}"
        for name in MODULES
        if _inside(name, "mmekit.server")
        for imported in _imports(name)
        if _inside(imported, "mmekit.worker") and imported not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_start_knows_of_the_second_engine() -> None:
    wrong = [
        f"{name} imports {imported}"
        for name in MODULES
        if not _inside(name, "mmekit.engine")
        for imported in _imports(name)
        if _inside(imported, "mmekit.engine") and name != "mmekit.start"
    ]
    assert not wrong, "\n".join(wrong)


def test_handlers_import_only_errors_and_their_siblings() -> None:
    wrong = [
        f"{name} imports {imported}"
        for name in MODULES
        if _inside(name, "mmekit_handlers")
        for imported in _imports(name)
        if _inside(imported, "mmekit") and imported != "mmekit.errors"
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_of_the_server_process_imports_a_framework() -> None:
    wrong = [
        f"{name} imports {imported}"
        for name in MODULES
        if _inside(name, "mmekit") and not _inside(name, "mmekit.worker")
        for imported in _imports(name)
        if imported.split(".")[0] in HEAVY
    ]
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_the_package_root_for_a_name_of_a_submodule() -> None:
    """The root would import its parts back; ``mmekit.__version__`` is all it has."""
    wrong = []
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in ROOTS:
                wrong += [
                    f"{name} imports {alias.name} from {node.module}"
                    for alias in node.names
                    if alias.name != "__version__" and f"{node.module}.{alias.name}" not in MODULES
                ]
    assert not wrong, "\n".join(wrong)


def test_imports_have_no_cycle() -> None:
    graph = {name: {i for i in _imports(name) if i in MODULES and i != name} for name in MODULES}
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        assert name not in path, " imports ".join([*path[path.index(name) :], name])
        if name not in done:
            for imported in sorted(graph[name]):
                visit(imported, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])

"""The architecture as a test: the contracts of pyproject.toml hold, and each of them would notice a breach.

The contracts run twice: over the tree, where all must hold, and over a copy of the tree with one breach of every kind
planted in it, where each breach must be named. A contract that cannot fail (a misspelt module, a pattern that matches
nothing) is found by the second run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTRACTS = {contract["id"]: contract["name"] for contract in PROJECT["tool"]["importlinter"]["contracts"]}

# contract, importing module, imported module
BREACHES = [
    ("floors", "chatsdk.core.planted_up", "chatsdk.plugin"),
    ("floors", "chatsdk.resilience.planted_up", "chatsdk.hookspecs"),
    ("floors", "chatsdk.plugin", "chatsdk.pipeline.planted"),
    ("floors", "chatsdk.pipeline.planted_up", "chatsdk.middleware.planted"),
    ("floors", "chatsdk.middleware.planted_up", "chatsdk.auth.planted"),
    ("floors", "chatsdk.outbox.planted_sibling", "chatsdk.realtime.planted"),
    ("floors", "chatsdk.network.planted_sibling", "chatsdk.offline.planted"),
    ("floors", "chatsdk.uploads.planted_sibling", "chatsdk.devserver.planted"),
    ("floors", "chatsdk.auth.planted_up", "chatsdk.resources.planted"),
    ("floors", "chatsdk.resources.planted_up", "chatsdk.cli.planted"),
    ("floors", "chatsdk.testing.planted_sibling", "chatsdk.cli.planted"),
    ("users-door", "chatsdk.outbox.planted_door", "chatsdk"),
    ("users-door", "chatsdk.client", "chatsdk"),
    ("middleware-door", "chatsdk.middleware.planted_door", "chatsdk.core.planted"),
    ("middleware-door", "chatsdk.middleware.planted_door", "chatsdk.hookspecs"),
    ("middleware-strangers", "chatsdk.middleware.planted_friend", "chatsdk.middleware.planted"),
    ("homes", "chatsdk.auth.planted_library", "requests"),
    ("homes", "chatsdk.client", "circuitbreaker"),
    ("homes", "chatsdk.devserver.planted_library", "websocket"),
    ("homes", "chatsdk.offline.planted_library", "persistqueue"),
    ("homes", "chatsdk.client", "click"),
    ("homes", "chatsdk.network.planted_library", "rich"),
    ("homes", "chatsdk.testing.planted_library", "starlette"),
    ("homes", "chatsdk.cli.planted_library", "uvicorn"),
    ("homes", "chatsdk.devserver.planted_library", "pytest"),
    ("pure-core", "chatsdk.core.planted_library", "requests"),
    ("pure-core", "chatsdk.core.planted_library", "pluggy"),
    ("pure-core", "chatsdk.core.planted_network", "socket"),
    ("pure-core", "chatsdk.core.planted_disk", "sqlite3"),
    ("pure-core", "chatsdk.core.protocols.planted_thread", "threading"),
    ("pure-core", "chatsdk.core.protocols.planted_clock", "time"),
    ("no-integrations", "chatsdk.client", "chatsdk_django"),
    ("no-integrations", "chatsdk.pipeline.planted_integration", "chatsdk_redis"),
]


def lint(where: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts over the tree in `where`."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--config", "pyproject.toml"]
    env = {**os.environ, "COLUMNS": "500", "NO_COLOR": "1"}  # a name that is wrapped or coloured is not found again
    return subprocess.run(command, cwd=where, env=env, capture_output=True, text=True, timeout=60)


def plant(root: Path, importer: str, imported: str) -> None:
    """Add `import imported` to the module `importer` under `root`; make what is missing of both."""
    for module in (imported, importer):
        if module.partition(".")[0] != "chatsdk":
            continue
        path = root.joinpath(*module.split("."))
        for folder in path.relative_to(root).parents:
            if folder != Path("."):
                (root / folder).mkdir(exist_ok=True)
                (root / folder / "__init__.py").touch()
        if not path.is_dir():
            path.with_suffix(".py").touch()
    file = root.joinpath(*importer.split(".")).with_suffix(".py")
    file.write_text(f"{file.read_text(encoding='utf-8')}\nimport {imported}\n", encoding="utf-8")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Give what each contract says about a copy of the tree with every breach planted in it."""
    root = tmp_path_factory.mktemp("breached")
    shutil.copy(ROOT / "pyproject.toml", root)
    shutil.copytree(ROOT / "chatsdk", root / "chatsdk", ignore=shutil.ignore_patterns("__pycache__"))
    for _, importer, imported in BREACHES:
        plant(root, importer, imported)
    (root / "chatsdk" / "planted_room.py").touch()
    result = lint(root)
    assert result.returncode == 1, result.stdout + result.stderr
    broken = result.stdout.partition("Broken contracts")[2]
    assert broken, result.stdout
    # Each part opens with the contract's name, underlined.
    parts = re.split(r"^(.+)\n-+\n", broken, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_contracts_hold() -> None:
    """No module imports upwards, past a door, or a library outside its home."""
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"Contracts: {len(CONTRACTS)} kept, 0 broken." in result.stdout


@pytest.mark.parametrize(("contract", "importer", "imported"), BREACHES)
def test_breach_is_noticed(report: dict[str, str], contract: str, importer: str, imported: str) -> None:
    """A planted import that breaks a contract is named by that contract."""
    assert re.search(rf"{re.escape(importer)} -> {re.escape(imported)} \(l\.", report[CONTRACTS[contract]])


def test_module_without_a_floor_is_noticed(report: dict[str, str]) -> None:
    """A new module at the top of the package must be given a floor."""
    assert "- chatsdk.planted_room" in report[CONTRACTS["floors"]]


def test_every_contract_is_breached_once() -> None:
    """No contract is left out of the control above."""
    assert {contract for contract, _, _ in BREACHES} == set(CONTRACTS)


@pytest.fixture(scope="module")
def externals() -> dict[str, set[str]]:
    """Give the external packages that each module of chatsdk imports."""
    graph = grimp.build_graph("chatsdk", include_external_packages=True, cache_dir=None)
    inside = {module for module in graph.modules if not graph.is_module_squashed(module)}
    return {module: set(graph.find_modules_directly_imported_by(module)) - inside for module in inside}


def test_core_needs_the_standard_library_only(externals: dict[str, set[str]]) -> None:
    """The core imports no library at all, also none that the contract does not list."""
    core = {module: names for module, names in externals.items() if module.startswith("chatsdk.core.")}
    assert core
    assert {module: names - sys.stdlib_module_names for module, names in core.items()} == {m: set() for m in core}


def test_every_library_is_declared(externals: dict[str, set[str]]) -> None:
    """What the package imports is the standard library, or stands in pyproject.toml."""
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *extras["cli"], *extras["server"]]
    declared = {re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-") for requirement in requirements}
    distributions = packages_distributions()
    for module, names in externals.items():
        allowed = {"pytest"} if module.startswith("chatsdk.testing.") else set()  # there a test runner is at hand
        for name in names - sys.stdlib_module_names - allowed:
            owners = {owner.lower().replace("_", "-") for owner in distributions.get(name, [name])}
            assert owners & declared, f"{module} imports {name}, which pyproject.toml does not declare"

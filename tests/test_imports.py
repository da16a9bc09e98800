"""What an import costs and does: `import chatsdk` pulls in no library, and no module of the package acts when imported.

A script that only asks for help, a web worker and a test all import the package; none of them should pay for parts that
it does not use, and none should find a thread, a socket or a file that it did not ask for.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOORS = ("chatsdk", "chatsdk.plugin")

HEAVY = {
    "asyncio",
    "circuitbreaker",
    "click",
    "importlib.metadata",
    "inotify_simple",
    "jwt",
    "persistqueue",
    "platformdirs",
    "pluggy",
    "requests",
    "rich",
    "socket",
    "sqlite3",
    "ssl",
    "starlette",
    "urllib3",
    "uvicorn",
    "websocket",
}

IMPORT_EVERYTHING = """
import importlib, json, os, pkgutil, sys, threading
import requests  # urllib3 binds a socket of its own when it is imported, to see whether there is IPv6

acts = []
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT

def watch(event, args):
    if event in ("socket.__new__", "socket.bind", "socket.connect", "sqlite3.connect", "subprocess.Popen", "os.fork"):
        acts.append([event, str(args[:1])])
    elif event == "open" and args[2] is not None and args[2] & WRITES:
        acts.append([event, str(args[0])])

sys.addaudithook(watch)
import chatsdk

names = ["chatsdk"]
for found in pkgutil.walk_packages(chatsdk.__path__, "chatsdk."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
        names.append(found.name)
print(json.dumps({"names": names, "acts": acts, "threads": [thread.name for thread in threading.enumerate()]}))
"""


def fresh(code: str) -> Any:
    """Run `code` in a new interpreter that knows the package by its path only; give the JSON that it prints."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_import_pulls_in_no_library() -> None:
    """`import chatsdk` loads none of the libraries that the parts need later."""
    modules = set(fresh("import json, sys; import chatsdk; print(json.dumps(sorted(sys.modules)))"))
    assert "chatsdk" in modules
    assert not modules & HEAVY


def test_one_name_loads_only_its_own_part() -> None:
    """The errors come without the client: a handler that only catches them pays for nothing else."""
    modules = set(fresh("import json, sys; from chatsdk import ChatError; print(json.dumps(sorted(sys.modules)))"))
    assert "chatsdk.core.errors" in modules
    assert not modules & (HEAVY | {"chatsdk.client"})


def test_importing_does_nothing() -> None:
    """No module starts a thread or process, opens a socket or database, or writes a file when it is imported."""
    seen = fresh(IMPORT_EVERYTHING)
    assert {"chatsdk", "chatsdk.client", "chatsdk.core.errors"} <= set(seen["names"])
    assert seen["acts"] == []
    assert seen["threads"] == ["MainThread"]


@pytest.mark.parametrize("door", DOORS)
def test_public_names_resolve(door: str) -> None:
    """Every name of `__all__` is there, once, and in the listing of the module."""
    module = importlib.import_module(door)
    assert len(module.__all__) == len(set(module.__all__))
    assert [name for name in module.__all__ if getattr(module, name, None) is None] == []
    assert set(module.__all__) <= set(dir(module))


def test_star_import_gives_the_public_names() -> None:
    """`from chatsdk import *` works although the names are loaded late."""
    names: dict[str, Any] = {}
    exec("from chatsdk import *", names)
    assert set(importlib.import_module("chatsdk").__all__) <= set(names)


def test_checkers_and_programs_see_the_same_names() -> None:
    """What the door imports for type checkers is, name by name and home by home, what it loads when it is used."""
    tree = ast.parse((ROOT / "chatsdk" / "__init__.py").read_text(encoding="utf-8"))
    checked = {
        alias.asname or alias.name: f"chatsdk.{node.module}"
        for block in tree.body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    door = importlib.import_module("chatsdk")
    assert set(checked) == set(door.__all__) - {"__version__"}
    for name, home in checked.items():
        assert getattr(importlib.import_module(home), name) is getattr(door, name)


@pytest.mark.parametrize("door", DOORS)
def test_public_names_are_documented(door: str) -> None:
    """Every public class, function and module, and every public method and property of them, has a docstring."""
    module = importlib.import_module(door)
    bare = [f"{door}.{name}" for name in module.__all__ if not _documented(getattr(module, name), name)]
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing):
            bare += [
                f"{door}.{name}.{member}"
                for member, value in vars(thing).items()
                if not member.startswith("_")
                and (inspect.isroutine(value) or isinstance(value, property | classmethod | staticmethod))
                and not inspect.getdoc(getattr(thing, member))
            ]
    assert bare == []


def _documented(thing: Any, name: str) -> bool:
    if not (inspect.isclass(thing) or inspect.isroutine(thing) or isinstance(thing, ModuleType)):
        return True  # a constant or an alias of a type is described where it is defined
    text = thing.__doc__ or ""
    return bool(text.strip()) and not text.startswith(f"{name}(")  # a dataclass without one gets its signature


@pytest.mark.parametrize(
    ("wrong", "right"), [("ChatClinet", "ChatClient"), ("Reciept", "Receipt"), ("event", "events")]
)
def test_misspelt_name_is_answered_with_the_nearest(wrong: str, right: str) -> None:
    """A slip in a name says what was meant."""
    with pytest.raises(AttributeError, match=rf"\b{right}\b"):
        getattr(importlib.import_module("chatsdk"), wrong)
    with pytest.raises(ImportError):
        exec(f"from chatsdk import {wrong}")

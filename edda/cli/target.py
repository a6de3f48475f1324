"""What `module:name` means on the command line: a workflow or an app, imported from the current directory."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from edda.app import EddaApp
from edda.cli.failures import Usage
from edda.workflow import Workflow


def load(target: str) -> Any:
    """The object, or the module where no name is given. Raises `Usage`, naming what is missing."""
    _, colon, path = target.partition(":")
    module = module_of(target)
    found: Any = module
    for part in path.split(".") if colon else ():
        if not hasattr(found, part):
            raise Usage(f"There is no {path!r} in {module.__name__}; it has {_meant(module)}")
        found = getattr(found, part)
    return found


def apps_in(module: ModuleType) -> dict[str, EddaApp]:
    """The apps of a module by name, each once."""
    first_names: dict[int, str] = {}
    for name, value in vars(module).items():
        if isinstance(value, EddaApp):
            first_names.setdefault(id(value), name)
    return {name: getattr(module, name) for name in first_names.values()}


def module_of(target: str) -> ModuleType:
    """The module of a target. Raises `Usage`."""
    name = target.partition(":")[0]
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    if not name or name.endswith(".py") or "/" in name:
        raise Usage(f"{target!r} is no module; write shop or shop.orders, and what is in it: shop.orders:app")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise Usage(f"There is no module '{error.name}' here or among what is installed") from error
        raise Usage(f"{name} cannot be imported: {error}") from error
    except Exception as error:
        raise Usage(f"{name} cannot be imported: {type(error).__name__}: {error}") from error


def _meant(module: ModuleType) -> str:
    """What of a module can stand on the command line."""
    of_use = [name for name, value in vars(module).items() if isinstance(value, (EddaApp, Workflow))]
    return ", ".join(f"{module.__name__}:{name}" for name in sorted(of_use)) or "no workflow and no EddaApp"

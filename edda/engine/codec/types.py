"""Names of types at rest, and the way back: `module:qualname` -> a class that this process already has.

Knows nothing of values. Laws: nothing is ever imported because a row names it, and no code of the module or class runs
when it is looked up (only namespaces are read, so neither a module's `__getattr__` nor a lazy loader wakes). What is
found counts only if it says itself that this is its name.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import cast

SCRIPT = "__main__"


class KnownTypes:
    """The classes of this process, by stored name; `extra` ones come first."""

    def __init__(self, extra: Mapping[str, type] | None = None, *, base: KnownTypes | None = None) -> None:
        self._registered: dict[str, type] = dict(extra or {})
        self._base = base

    def register(self, cls: type) -> None:
        """Make a class findable that its module does not hold, e.g. one defined in a function."""
        self._registered[name_of(cls)] = cls

    def is_registered(self, cls: type) -> bool:
        return self._registered.get(name_of(cls)) is cls

    def find(self, name: str) -> type | None:
        """The class of this name, or None when it is not (yet) here or never was a class."""
        registered = self._registered.get(name)
        if registered is not None:
            return registered
        if self._base is not None:
            return self._base.find(name)
        module_name, _, qualname = name.partition(":")
        found = _walk(_loaded_module(module_name), qualname)
        return found if found is not None and name_of(found) == name else None

    def knows(self, cls: type) -> bool:
        """Whether another process that runs the same code will find exactly this class."""
        return self.find(name_of(cls)) is cls


def name_of(cls: type) -> str:
    module = cls.__module__
    return f"{_script_name() if module == SCRIPT else module}:{cls.__qualname__}"


def _script_name() -> str:
    """`python -m shop.app` runs `shop.app` under the name `__main__`; other workers import it by its own."""
    spec = getattr(sys.modules.get(SCRIPT), "__spec__", None)
    return spec.name if spec is not None else SCRIPT


def _loaded_module(name: str) -> ModuleType | None:
    module = sys.modules.get(SCRIPT if name == _script_name() else name)
    return module if module is not None and _is(module, ModuleType) else None


def _walk(module: ModuleType | None, qualname: str) -> type | None:
    node: object = module
    for part in qualname.split("."):
        if not (_is(node, ModuleType) or _is(node, type)):
            return None
        node = _namespace(node).get(part)
    return cast(type, node) if _is(node, type) else None


def _is(node: object, kind: type) -> bool:
    """Not isinstance(): if the answer is no it asks the object for its `__class__`, which may run code."""
    return issubclass(type(node), kind)


def _namespace(node: object) -> Mapping[str, object]:
    # Not vars(): on a module of importlib.util.LazyLoader that would execute the module.
    if _is(node, type):
        return cast("Mapping[str, object]", type.__getattribute__(cast(type, node), "__dict__"))
    return cast("Mapping[str, object]", object.__getattribute__(node, "__dict__"))


TYPES = KnownTypes()
"""Like `sys.modules`, which it reads, the registry of types belongs to the process, not to an app."""

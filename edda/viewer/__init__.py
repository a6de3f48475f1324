"""A web page to look at workflows with: `serve(url)` as a program, `create_app(url, token=...)` inside your own.

It reads the database and imports no code of yours; given your app, it has forms for what its workflows are started
with. Needs the extra: `pip install 'edda-framework[viewer]'`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edda.exceptions import MissingExtraError

if TYPE_CHECKING:
    from edda.viewer.application import create_app
    from edda.viewer.server import serve

__all__ = ["create_app", "serve"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        if name == "serve":
            from edda.viewer.server import serve

            return serve
        from edda.viewer.application import create_app

        return create_app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("jinja2", "starlette", "uvicorn"):
            raise
        raise MissingExtraError(what="The viewer", package=error.name, extra="viewer") from error

"""Routes, by method and path, at any mount; no server, no events yet."""

from __future__ import annotations

import pytest

from edda.http.request import path_within
from edda.http.routes import Cancel, Event, Handshake, Health, NotAllowed, Readiness, route_of


@pytest.mark.parametrize("path", ["/", "/events", "/a/b/c", "/cancelled", "/cancellation/x", "/healthz/x", "//", ""])
def test_a_post_on_any_path_that_is_no_route_is_an_event(path: str) -> None:
    assert route_of("POST", path, handshake=False) == Event()


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "post", "BREW"]
)
def test_any_other_method_there_is_told_that_only_post_is_answered(method: str) -> None:
    assert route_of(method, "/events", handshake=False) == NotAllowed("POST")


def test_options_is_answered_only_where_the_handshake_is_configured() -> None:
    assert route_of("OPTIONS", "/events", handshake=True) == Handshake()
    assert route_of("GET", "/events", handshake=True) == NotAllowed("POST, OPTIONS")
    assert route_of("OPTIONS", "/cancel/x", handshake=True) == NotAllowed("POST")


def test_everything_behind_cancel_is_the_id_slashes_and_all() -> None:
    assert route_of("POST", "/cancel/parent/call:1", handshake=False) == Cancel("parent/call:1")
    assert route_of("POST", "/cancel//x/", handshake=False) == Cancel("/x/")
    assert route_of("POST", "/cancel/", handshake=False) == Cancel("")
    assert route_of("POST", "/cancel", handshake=False) == Cancel("")


def test_a_cancel_by_any_other_method_is_none() -> None:
    assert route_of("GET", "/cancel/x", handshake=False) == NotAllowed("POST")


def test_probes_are_read_only() -> None:
    assert route_of("GET", "/healthz", handshake=False) == Health()
    assert route_of("HEAD", "/readyz", handshake=False) == Readiness()
    assert route_of("POST", "/healthz", handshake=False) == NotAllowed("GET, HEAD")
    assert route_of("POST", "/readyz", handshake=True) == NotAllowed("GET, HEAD")


@pytest.mark.parametrize(
    ("path", "root_path", "within"),
    [
        ("/cancel/x", "", "/cancel/x"),
        ("/workflows/cancel/x", "/workflows", "/cancel/x"),
        ("/workflows/cancel/x", "/workflows/", "/cancel/x"),
        ("/api/v1/workflows/cancel/x", "/api/v1/workflows", "/cancel/x"),
        ("/cancel/x", "/workflows", "/cancel/x"),
        ("/workflowsandmore", "/workflows", "/workflowsandmore"),
        ("/workflows", "/workflows", "/"),
        ("", "", "/"),
        ("/x", "/", "/x"),
    ],
)
def test_the_prefix_of_a_mount_is_no_part_of_the_path(path: str, root_path: str, within: str) -> None:
    assert path_within(path, root_path) == within

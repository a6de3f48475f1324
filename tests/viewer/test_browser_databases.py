"""The core of what a visitor sees and does, on every server there is: the same tests as on SQLite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests import databases
from tests.viewer.scene import Scene
from tests.viewer.test_browser import (  # noqa: F401 - collected here
    test_a_click_on_an_activity_shows_its_input_output_and_attempts,
    test_a_dead_letter_can_be_requeued,
    test_a_new_instance_appears_in_the_list_without_reload,
    test_an_event_can_be_sent_to_an_instance,
    test_an_instance_can_be_cancelled,
    test_an_instance_is_started_from_a_form_with_rows_and_extras,
    test_an_instance_that_ends_is_seen_to_end_without_reload,
    test_every_page_is_whole,
    test_pages_of_the_list_go_on_without_gap_or_repetition,
    test_statuses_workflows_and_input_fields_narrow_the_list,
    test_what_could_not_be_undone_can_be_tried_again,
)

pytestmark = pytest.mark.browser


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, marks=getattr(pytest.mark, kind)) for kind in ("postgresql", "mysql")],
)
def scene(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Scene]:
    if databases.available()[request.param] is None:
        pytest.skip(f"!!! NOT TESTED IN A BROWSER !!! there is no {request.param} server")
    with Scene.begun(kind=request.param) as scene:
        yield scene

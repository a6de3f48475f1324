"""Part of the verb-pair matrix: every ordered pair of verbs, in some of the situations that have both.

`python -m tests.storage.verb_pairs` plays all of them, and `./run soak` does so, too.
"""

from __future__ import annotations

import pytest

from tests.storage.verb_pairs.forgetting import VERBS
from tests.storage.verb_pairs.matrix import Matrix, cases, missed, sample, total
from tests.storage.verb_pairs.mutants import MUTANTS, routes_with_the_wake


def test_every_ordered_pair_of_verbs_has_a_situation() -> None:
    assert {case.pair for case in cases()} == {(first, second) for first in VERBS for second in VERBS}


@pytest.mark.parametrize("first", VERBS)
async def test_two_verbs_are_as_one_after_the_other(first: str, server_url: str) -> None:
    matrix = Matrix(server_url)
    await matrix.play(sample(first))
    sum_ = total(matrix.table.values())
    assert not sum_.violations, "\n\n".join(sum_.violations[:5])
    assert {second for _, second in matrix.table} == set(VERBS)
    assert sum_.stops >= 2 * sum_.cases
    # InnoDB also locks entries beside those looked at, and which there are depends on what it has purged.
    assert sum_.needless == 0 or server_url.startswith("mysql")


async def test_an_event_and_who_waits_for_it_do_not_miss_each_other(server_url: str) -> None:
    found, stops = await missed(server_url)
    assert found == []
    assert stops > 20


async def test_they_would_if_the_routes_were_written_with_the_wake(server_url: str) -> None:
    with routes_with_the_wake():
        found, _ = await missed(server_url)
    assert found


@pytest.mark.parametrize("title", MUTANTS)
async def test_the_matrix_sees_a_planted_bug(title: str, server_url: str) -> None:
    plant, pairs = MUTANTS[title]
    matrix = Matrix(server_url)
    with plant():
        for first, second in pairs:
            await matrix.play(cases(first=first, second=second))
    assert total(matrix.table.values()).violations

"""Many points at once: inside the space, with what was given, changed where they should be."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from adanet_py.controllers.columns import columns_of
from adanet_py.controllers.points import points_of
from adanet_py.space import assemble, contains

sys.path.insert(0, str(Path(__file__).parent))
from spaces import ZOO


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(params=ZOO)
def space(request):
    return ZOO[request.param]


def drawn(space, m=60, seed=0):
    columns = columns_of(space)
    free = np.full(len(columns.decisions), np.nan)
    points = points_of(columns)
    return points, free, points.finish(points.draw(m, rng(seed)), free)


def inside(space, found):
    columns = columns_of(space)
    for point in found:
        assignment = columns.decode(point)
        assert contains(space, assemble(space, assignment, 0)) is None
        # exactly what is active is decided, and a whole number is where its candidate is
        assert np.allclose(columns.encode(assignment), point, atol=1e-5, equal_nan=True)


def test_drawn_and_changed_points_are_in_the_space(space):
    points, free, found = drawn(space)
    inside(space, found)
    inside(space, points.change(found, free, points.draw(5, rng(1)), rng(2)))


def test_what_is_given_is_kept_and_the_rest_changes(space):
    points, _, found = drawn(space)
    columns = columns_of(space)
    program = {d.name for d in space.decisions if d.static}
    first = columns.decode(found[0])
    given = columns.encode({k: v for k, v in first.items() if k in program})
    known = ~np.isnan(given)
    donors = points.draw(5, rng(1))
    moved = points.move_to(given, found, donors)
    inside(space, moved)
    changed = points.change(moved, given, donors, rng(2))
    inside(space, changed)
    assert (moved[:, known] == given[known]).all()
    assert (changed[:, known] == given[known]).all()


def test_a_change_changes(space):
    points, free, found = drawn(space)
    changed = points.change(found, free, points.draw(5, rng(1)), rng(2))
    same = (points.keys(found) == points.keys(changed)).mean()
    sizes = [d.size for d in space.decisions]
    # a step on whole numbers may be too small to leave one, and one option has no other
    assert same < 0.5 or max(sizes) == 1


def test_keys_tell_points_apart():
    points, _, found = drawn(ZOO["table"], 500)
    keys = points.keys(found)
    assert len(set(keys.tolist())) == 500
    assert np.array_equal(keys, points.keys(found.copy()))

"""Refinement: moves that make children of a good network and carry its weights over.

One function (or file) per move and one line in `MOVES`. No torch at import.
"""

from adanet_py.errors import SpaceError, check_known
from adanet_py.refine import add_skip, deepen, factorise, prune, sparsify, train_on, widen
from adanet_py.refine.move import Move

MOVES: dict[str, Move] = {
    "train_on": train_on.MOVE,
    "widen": widen.MOVE,
    "deepen": deepen.MOVE,
    "add_skip": add_skip.MOVE,
    "prune:magnitude": prune.MAGNITUDE,
    "prune:saliency": prune.SALIENCY,
    "prune:output": prune.OUTPUT,
    "factorise": factorise.MOVE,
    "sparsify:magnitude": sparsify.MAGNITUDE,
    "sparsify:layer": sparsify.LAYER,
    "sparsify:relative": sparsify.RELATIVE,
}

__all__ = ["MOVES", "Move", "find_move", "find_moves"]


def find_move(name: str | None) -> Move:
    """The move of a name; SpaceError for an unknown one, with the nearest name."""
    check_known("move", str(name), MOVES, SpaceError)
    return MOVES[str(name)]


def find_moves(name: str) -> list[str]:
    """The names of the move, or of all whose name begins with it and a colon.

    Raises SpaceError where there is none, with the nearest name.
    """
    kinds = [n for n in MOVES if n.partition(":")[0] == name]
    if not kinds:
        find_move(name)
    return kinds or [name]

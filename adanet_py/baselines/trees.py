"""Trees as plain arrays: what scikit-learn has fitted, without scikit-learn; numpy only.

`feature` [nodes] is the column a node asks for, numbers first and then categories, -1 of a leaf;
`number` its threshold (left is <=), or of a leaf its value; `right` the node to the right, the one
to the left being the next; `missing_left` where NaN goes; `bitset` the row of `bitsets` [b, 8]
whose bit c says that the category code c goes left, -1 where the question is about a number.
`tree` [t] is the first node of each tree, `output` and `fold` [t] what it adds to. `base`
[folds, outputs] is added to the sums, which `shrink` [folds] multiplies. The leaves of trees with
`leaf` hold several outputs: those of leaf i are `share[leaf[i]:leaf[i + 1]]` of the outputs
`column`, and its number is i.

The sums are outputs as those of a network (outputs.py) where `link` is 0, their exponential where
it is 1; probabilities themselves where it is 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]

OUTPUTS, LOG, PROBABILITIES = 0, 1, 2  # links
NEVER = -30.0  # logit of a class that no training row has
CODES = 256  # of a category that a bitset tells apart
_BLOCK = 1_000_000  # rows times trees walked together


@dataclass
class Forest:
    """Trees being put together; `arrays` is what they are in the end."""

    folds: int
    outputs: int
    link: int = OUTPUTS
    base: np.ndarray = field(init=False)
    shrink: np.ndarray = field(init=False)
    _parts: list[dict[str, np.ndarray]] = field(default_factory=list)
    _tables: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)
    _nodes: int = 0
    _bitsets: int = 0
    _leaves: int = 0

    def __post_init__(self) -> None:
        self.base = np.zeros((self.folds, self.outputs))
        self.shrink = np.ones(self.folds)

    def add(
        self,
        feature: np.ndarray,
        number: np.ndarray,
        right: np.ndarray,
        missing_left: np.ndarray,
        *,
        fold: int,
        output: int = 0,
        bitset: np.ndarray | None = None,
        bitsets: np.ndarray | None = None,
    ) -> None:
        """One tree, its nodes in preorder; `right` and `bitset` count from its own beginning."""
        leaf = feature < 0
        own = np.full(len(feature), -1) if bitset is None else bitset
        rows = np.zeros((0, 8), np.uint32) if bitsets is None else bitsets
        self._parts.append(
            {
                "feature": np.where(leaf, -1, feature).astype(np.int32),
                "number": np.asarray(number, np.float64),
                "right": np.where(leaf, 0, right + self._nodes).astype(np.int32),
                "missing_left": np.asarray(missing_left, bool),
                "bitset": np.where(own < 0, -1, own + self._bitsets).astype(np.int32),
                "bitsets": rows.astype(np.uint32),
                "tree": np.array([self._nodes], np.int32),
                "output": np.array([output], np.int32),
                "fold": np.array([fold], np.int32),
            }
        )
        self._nodes += len(feature)
        self._bitsets += len(rows)

    def add_shares(
        self,
        feature: np.ndarray,
        number: np.ndarray,
        right: np.ndarray,
        missing_left: np.ndarray,
        shares: np.ndarray,
        *,
        fold: int,
    ) -> None:
        """A tree whose leaves hold `shares` [nodes, outputs], most of them 0."""
        leaf = np.flatnonzero(feature < 0)
        number = np.array(number, np.float64)
        number[leaf] = self._leaves + np.arange(len(leaf))
        at, column = np.nonzero(shares[leaf])
        counts = np.bincount(at, minlength=len(leaf))
        self._tables.append((counts, column, shares[leaf][at, column]))
        self._leaves += len(leaf)
        self.add(feature, number, right, missing_left, fold=fold)

    def arrays(self) -> dict[str, np.ndarray]:
        """What `raw_outputs` needs."""
        out = {n: np.concatenate([p[n] for p in self._parts]) for n in self._parts[0]}
        if (out["bitset"] < 0).all():
            del out["bitset"], out["bitsets"]
        if not out["missing_left"].any():
            del out["missing_left"]
        if self._tables:
            counts = np.concatenate([t[0] for t in self._tables])
            out["leaf"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
            out["column"] = np.concatenate([t[1] for t in self._tables]).astype(np.int16)
            out["share"] = np.concatenate([t[2] for t in self._tables]).astype(np.float32)
        return out | {"base": self.base, "shrink": self.shrink, "link": np.array([self.link])}


def add_boosting(
    forest: Forest, model: Any, fold: int, outputs: Sequence[int], iterations: int | None = None
) -> None:
    """Take a fitted HistGradientBoosting, of `iterations` or all, into outputs of a forest.

    `outputs`: of a model with a tree per class that of each class, else the one. Categories must be
    codes from 0 to 255; its columns must be numbers first, then categories.
    """
    known, order = _categories(model)
    base = np.ravel(model._baseline_prediction)
    forest.base[fold, list(outputs)] = base
    for step in model._predictors[:iterations]:
        for output, predictor in zip(outputs, step, strict=True):
            nodes = predictor.nodes
            leaf = nodes["is_leaf"].astype(bool)
            asked = np.flatnonzero(nodes["is_categorical"].astype(bool) & ~leaf)
            bitset, bitsets = np.full(len(nodes), -1), []
            for row, i in enumerate(asked):
                left = predictor.raw_left_cat_bitsets[nodes["bitset_idx"][i]]
                bits = np.unpackbits(left.astype("<u4").view(np.uint8), bitorder="little")
                out = np.full(CODES, bool(nodes["missing_go_to_left"][i]))
                codes = known[int(nodes["feature_idx"][i])]
                out[codes] = bits[: len(codes)].astype(bool)
                bitsets.append(np.packbits(out, bitorder="little").view("<u4"))
                bitset[i] = row
            forest.add(
                np.where(leaf, -1, order[nodes["feature_idx"]]),
                np.where(leaf, nodes["value"], nodes["num_threshold"]),
                nodes["right"].astype(np.int64),
                nodes["missing_go_to_left"],
                fold=fold,
                output=output,
                bitset=bitset,
                bitsets=np.array(bitsets, np.uint32).reshape(-1, 8),
            )


def _categories(model: Any) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """Codes known of each category column as the trees count columns, and the columns they mean."""
    if model._preprocessor is None:
        return {}, np.arange(model.n_features_in_)
    mask = model.is_categorical_
    order = np.concatenate([np.flatnonzero(mask), np.flatnonzero(~mask)])
    found = model._preprocessor.named_transformers_["encoder"].categories_
    known = {}
    for j, values in enumerate(found):
        codes = np.asarray(values, np.float64)
        codes = codes[~np.isnan(codes)].astype(np.int64)
        if len(codes) and not 0 <= codes.min() <= codes.max() < CODES:
            raise ValueError(f"Expected category codes from 0 to {CODES - 1}, found {codes.max()}.")
        known[j] = codes
    return known, order


def add_averaged(forest: Forest, model: Any, fold: int, output: int = 0) -> None:
    """Take a fitted forest of scikit-learn (random, or extremely randomised trees).

    Of two classes the share of the second goes to `output`, of more each to its own, of numbers
    the value; they are summed, so `forest.shrink` has to be one over the trees.
    """
    for estimator in model.estimators_:
        tree = estimator.tree_
        leaf = tree.children_left < 0
        inner = np.flatnonzero(~leaf)
        if not np.array_equal(tree.children_left[inner], inner + 1):
            raise ValueError("Expected a tree built depth first (max_leaf_nodes=None).")
        number = tree.threshold.copy()
        values = tree.value[:, 0, :]
        parts = (np.where(leaf, -1, tree.feature), number, tree.children_right)
        missing = tree.missing_go_to_left.astype(bool) & ~leaf
        if values.shape[1] <= 2:
            number[leaf] = values[leaf, -1]
            forest.add(*parts, missing, fold=fold, output=output)
        else:
            shares = np.zeros((len(leaf), forest.outputs))
            shares[:, model.classes_.astype(np.int64)] = values
            forest.add_shares(*parts, missing, shares, fold=fold)


def raw_outputs(arrays: Arrays, numeric: np.ndarray, codes: np.ndarray, fold: int) -> np.ndarray:
    """The sums of one fold's trees [N, outputs], before `link`.

    `numeric` [N, n] may hold NaN; `codes` [N, c] of categories from 256 on, or negative, count as
    missing.
    """
    x = np.concatenate([numeric.astype(np.float64), codes.astype(np.float64)], axis=1)
    columns = x[:, numeric.shape[1] :]
    columns[(columns < 0) | (columns >= CODES)] = np.nan
    out = np.zeros((arrays["base"].shape[1], len(x)))
    mine = np.flatnonzero(arrays["fold"] == fold)
    trees = max(1, _BLOCK // max(1, len(x)))
    for first in range(0, len(mine), trees):
        part = mine[first : first + trees]
        found = arrays["number"][_leaves(arrays, x, part)]  # [t, N]
        if "leaf" in arrays:
            _add_shares(arrays, found.astype(np.int64), out)
            continue
        output = arrays["output"][part]
        for c in np.unique(output):
            out[c] += found[output == c].sum(axis=0)
    return arrays["base"][fold] + arrays["shrink"][fold] * out.T


def _leaves(arrays: Arrays, x: np.ndarray, trees: np.ndarray) -> np.ndarray:
    """The leaf every row of x [N, D] comes to in every tree: nodes [t, N]."""
    n, width = x.shape
    flat = np.ascontiguousarray(x).reshape(-1)
    feature, number, right = arrays["feature"], arrays["number"], arrays["right"]
    holes = bool(np.isnan(flat).any())
    at = np.repeat(arrays["tree"][trees], n)
    live = np.arange(len(at))
    row = np.tile(np.arange(n) * width, len(trees))
    while True:
        node = at[live]
        asked = feature[node]
        on = asked >= 0
        if not on.all():
            live, row, node, asked = live[on], row[on], node[on], asked[on]
        if not len(live):
            return at.reshape(len(trees), n)
        value = flat[row + asked]
        left = value <= number[node]
        if "bitset" in arrays:
            which = arrays["bitset"][node]
            of = np.flatnonzero((which >= 0) & ~np.isnan(value))
            code = value[of].astype(np.int64)
            word = arrays["bitsets"][which[of], code >> 5]
            left[of] = (word >> (code & 31).astype(np.uint32)) & 1
        if holes and "missing_left" in arrays:
            left = np.where(np.isnan(value), arrays["missing_left"][node], left)
        at[live] = np.where(left, node + 1, right[node])


def _add_shares(arrays: Arrays, leaf: np.ndarray, out: np.ndarray) -> None:
    """Add what the leaves [t, N] hold to out [outputs, N]."""
    n = out.shape[1]
    leaf, row = leaf.reshape(-1), np.tile(np.arange(n), len(leaf))
    begin = arrays["leaf"][leaf].astype(np.int64)
    count = arrays["leaf"][leaf + 1].astype(np.int64) - begin
    each = np.repeat(np.arange(len(leaf)), count)
    entry = begin[each] + np.arange(len(each)) - (np.cumsum(count) - count)[each]
    at = arrays["column"][entry].astype(np.int64) * n + row[each]
    out += np.bincount(at, arrays["share"][entry], out.size).reshape(out.shape)

"""Which rows train, which validate, and which no choice ever sees (audit)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from adanet_py.errors import ConfigError, DataError, RunError
from adanet_py.tasks import has_several_targets, is_regression

if TYPE_CHECKING:
    import pandas as pd

Rows = NDArray[np.int64]

MIN_ROWS = 6  # two per fold of the smallest number of folds

FOLDS_BELOW = 6_000  # rows; larger tables validate on one hold-out
AUDIT_FROM = 5_000  # rows
_VALID_SHARE, _MAX_VALID = 0.15, 10_000
_AUDIT_SHARE, _MAX_AUDIT = 0.05, 5_000
_COMBINATION_ROWS = 10  # rows of one combination of labels from which it is a stratum
_TRIES = 16  # random draws among which a split by group is the best balanced


@dataclass(frozen=True)
class Split:
    """Row numbers (positions, int64, increasing): train[k] and valid[k] of every fold, and audit.

    `kind` is "holdout" (one pair) or "folds" (the valid[k] are disjoint and cover all rows but
    audit); `how` is a sentence for people.
    """

    kind: str
    train: tuple[Rows, ...]
    valid: tuple[Rows, ...]
    audit: Rows
    how: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz file that `load` reads; replaces an old one in one step."""
        arrays: dict[str, Any] = {"audit": self.audit}
        for k, (train, valid) in enumerate(zip(self.train, self.valid, strict=True)):
            arrays[f"train{k}"], arrays[f"valid{k}"] = train, valid
        temporary = Path(f"{os.fspath(path)}.tmp")
        with temporary.open("wb") as file:
            np.savez_compressed(file, about=np.array([self.kind, self.how]), **arrays)
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Split:
        """Inverse of `save`; raises RunError when the file is missing or damaged."""
        try:
            with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                kind, how = (str(word) for word in file["about"])
                folds = range(sum(name.startswith("train") for name in file.files))
                train = tuple(file[f"train{k}"] for k in folds)
                valid = tuple(file[f"valid{k}"] for k in folds)
                return cls(kind, train, valid, file["audit"], how)
        except FileNotFoundError as error:
            raise RunError(f"Expected the split of the run in {path}, found none.") from error
        except Exception as error:  # zipfile, zlib and numpy each have their own for bad bytes
            raise RunError(f"{path} is damaged: {error}.") from error


def make_split(
    target: int | ArrayLike | pd.Series[Any] | pd.DataFrame,
    task: str,
    *,
    folds: int | None = None,
    group: ArrayLike | pd.Series[Any] | None = None,
    time: ArrayLike | pd.Series[Any] | None = None,
    split: ArrayLike | pd.Series[Any] | None = None,
    seed: int = 0,
) -> Split:
    """Split the rows of a table; the same arguments always give the same split.

    `target` [N] holds class labels or values (or is N: then nothing is stratified). Several
    targets are [N, T]; labels are stratified by a row's combination of them, or by its rarest
    label where fewer than 10 rows have that combination. `folds` is the number of folds, 1 for a
    hold-out, None for folds below 6,000 rows and a hold-out from
    there. With `group` [N] no group is on two sides; with `time` [N] later rows validate and the
    latest audit; `split` [N] says "train", "valid" or "audit" for every row. From 5,000 rows on,
    5 % of them (at most 5,000) are kept for audit.

    Raises DataError when the rows do not allow it, ConfigError for options that exclude each
    other or an impossible number of folds.
    """
    n = target if isinstance(target, int) else len(np.asarray(target))
    labels = classes = None
    how = "at random"
    if not is_regression(task) and not isinstance(target, int):
        classes = _columns(target)
        labels, how = (classes[:, 0], "stratified by class")
        if has_several_targets(task):
            labels, how = _strata(classes)
    given = [
        name for name, v in (("group", group), ("time", time), ("split", split)) if v is not None
    ]
    if len(given) > 1:
        raise ConfigError(
            f"Splitting by {' and by '.join(given)} at once is not possible: give one."
        )
    if folds is not None and not 1 <= folds <= n:
        raise ConfigError(f"--folds: expected 1 (a hold-out) to {n} (rows), found {folds}.")
    if folds is not None and folds > 1 and (time is not None or split is not None):
        raise ConfigError(
            f"{folds} folds cannot be combined with a split by {given[0]}: leave folds out."
        )
    if split is not None:
        return _checked(_by_column(np.asarray(split)), classes)
    if n < MIN_ROWS:
        raise DataError(f"Expected at least {MIN_ROWS} rows with a target, found {n}. Add rows.")
    rng = np.random.default_rng([seed, 0x5B117])
    audit = min(round(_AUDIT_SHARE * n), _MAX_AUDIT) if n >= AUDIT_FROM else 0
    valid = min(max(round(_VALID_SHARE * n), min(100, n // 3)), _MAX_VALID)
    if time is not None:
        return _checked(_by_time(np.asarray(time), valid, audit), classes)
    many = folds if folds is not None else (_auto_folds(n, classes) if n < FOLDS_BELOW else 1)
    if group is not None:
        return _checked(_by_group(_codes(group), labels, many, folds, valid, audit, rng), classes)
    order = _stratified_order(n, labels, rng)
    rest = np.sort(order[audit:])
    if many == 1:
        parts = order[audit + valid :], order[audit : audit + valid], order[:audit]
        return _checked(_holdout(*parts, how), classes)
    fold = _deal(None if labels is None else labels[rest], len(rest), many, rng)
    return _checked(_folds(rest, fold, many, np.sort(order[:audit]), how), classes)


def check_weights(weight: NDArray[Any], split: Split) -> None:
    """Raise DataError where a part of `split` has no row of a `weight` [N] above 0."""
    parts = {"train on": split.train, "validate on": split.valid}
    if len(split.audit):
        parts["audit on"] = (split.audit,)
    for words, sides in parts.items():
        for k, rows in enumerate(sides):
            if not weight[rows].any():
                raise DataError(
                    f"The {split.how} leaves only rows of weight 0 to {words} (part {k + 1}). "
                    "Give more rows a weight, use fewer folds, or split another way."
                )


def _codes(values: Any) -> Rows:
    import pandas as pd  # not at import: workers load splits, and do without pandas

    codes, _ = pd.factorize(pd.Series(np.asarray(values)), sort=True)
    return codes.astype(np.int64)


def _columns(target: Any) -> Rows:
    """Codes of every target column [N, T], for one column [N, 1]."""
    if not hasattr(target, "columns"):
        target = np.asarray(target)
        columns = [target] if target.ndim == 1 else list(target.T)
    else:
        columns = [target[name] for name in target.columns]
    return np.stack([_codes(column) for column in columns], axis=1)


def _strata(classes: Rows) -> tuple[Rows, str]:
    """The stratum of each row [N] by its labels [N, T], and in words what it is."""
    _, combination, counts = np.unique(classes, axis=0, return_inverse=True, return_counts=True)
    combination = combination.reshape(-1)
    rare = counts[combination] < _COMBINATION_ROWS
    if not rare.any():
        return combination.astype(np.int64), "stratified by the combination of labels"
    # Rows that have each label of the row [N, T]: the label with the fewest decides.
    sizes = np.stack([np.bincount(column)[column] for column in classes.T], axis=1)
    column = sizes.argmin(axis=1)
    rarest = 2 * column + classes[np.arange(len(classes)), column]
    key = np.where(rare, -1 - rarest, combination)
    _, strata = np.unique(key, return_inverse=True)
    how = "stratified by the combination of labels, rare combinations by their rarest label"
    return strata.reshape(-1).astype(np.int64), how if not rare.all() else (
        "stratified by the rarest label of each row"
    )


def _auto_folds(n: int, classes: Rows | None) -> int:
    fewest = n if classes is None else min(int(np.bincount(c).min()) for c in classes.T)
    return max(3, min(5, fewest))


def _stratified_order(n: int, labels: Rows | None, rng: np.random.Generator) -> Rows:
    """A random order of which every beginning has the classes in their shares."""
    order = rng.permutation(n)
    if labels is None:
        return order
    by_class = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    place = (np.arange(n) - first + 0.5) / np.repeat(counts, counts)
    # Ties (classes of one size) in random order, or small cuts would always favour one class.
    return by_class[np.lexsort((rng.random(n), place))]


def _deal(labels: Rows | None, n: int, folds: int, rng: np.random.Generator) -> Rows:
    """Fold of each row, [n]: rows dealt like cards, class after class."""
    order = rng.permutation(n)
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]
    fold = np.empty(n, dtype=np.int64)
    fold[order] = np.arange(n) % folds
    return fold


def _holdout(train: Rows, valid: Rows, audit: Rows, how: str) -> Split:
    words = f"hold-out {how}: {len(train):,} rows train, {len(valid):,} validate"
    sides = [np.sort(np.asarray(rows, dtype=np.int64)) for rows in (train, valid, audit)]
    return Split("holdout", (sides[0],), (sides[1],), sides[2], words + _audit_words(audit))


def _folds(rest: Rows, fold: Rows, folds: int, audit: Rows, how: str) -> Split:
    train = tuple(rest[fold != k] for k in range(folds))
    valid = tuple(rest[fold == k] for k in range(folds))
    words = f"{folds} folds {how} over {len(rest):,} rows"
    return Split("folds", train, valid, audit.astype(np.int64), words + _audit_words(audit))


def _audit_words(audit: Rows) -> str:
    return f", {len(audit):,} kept for audit" if len(audit) else ", none kept for audit"


def _by_column(parts: NDArray[Any]) -> Split:
    sides = [np.flatnonzero(parts == name) for name in ("train", "valid", "audit")]
    for name, rows in zip(("train", "valid"), sides, strict=False):
        if not rows.size:
            raise DataError(f"The split given has no row {name!r}: expected some. Mark rows so.")
    return _holdout(sides[0], sides[1], sides[2], "as given")


def _by_time(time: NDArray[Any], valid: int, audit: int) -> Split:
    order = np.argsort(time, kind="stable")
    moments = time[order]
    n = len(moments)
    # Rows of one moment stay together, on the later side, while earlier rows remain.
    cut = [int(np.searchsorted(moments, moments[n - valid - audit]))]
    cut.append(int(np.searchsorted(moments, moments[n - audit])) if audit else n)
    if cut[0] == 0:
        cut[0] = int(np.searchsorted(moments, moments[0], side="right"))
        cut[1] = max(cut[1], cut[0])
    if cut[0] == n:
        raise DataError(
            "Split by time: expected different times, found the same in every row. "
            "Choose another time column or none."
        )
    if cut[1] == cut[0]:  # validation matters more than audit
        cut[1] = n
    parts = order[: cut[0]], order[cut[0] : cut[1]], order[cut[1] :]
    return _holdout(*parts, "by time (the latest rows)")


def _by_group(
    group: Rows,
    labels: Rows | None,
    many: int,
    folds: int | None,
    valid: int,
    audit: int,
    rng: np.random.Generator,
) -> Split:
    sizes = np.bincount(group)
    if folds is None and many > 1:
        many = min(many, len(sizes))
    if len(sizes) < max(2, many):
        raise DataError(
            f"Split by group: expected at least {max(2, many)} different groups, found "
            f"{len(sizes)}."
        )
    audit = audit if len(sizes) >= 10 else 0
    best: Split | None = None
    best_score = np.inf
    for _ in range(_TRIES):
        side = _draw_groups(sizes, many, valid, audit, rng)[group]
        kept = np.flatnonzero(side >= 0)
        audited = np.flatnonzero(side < 0)
        if many == 1:
            one = _holdout(kept[side[kept] == 0], kept[side[kept] == 1], audited, "by group")
        else:
            one = _folds(kept, side[kept], many, audited, "by group")
        score = _imbalance(one, labels, len(group), valid)
        if best is None or score < best_score:
            best, best_score = one, score
    assert best is not None
    return best


def _draw_groups(sizes: Rows, many: int, valid: int, audit: int, rng: np.random.Generator) -> Rows:
    """Side of each group: -1 audit; with one fold 0 train and 1 valid; else the fold."""
    side = np.zeros(len(sizes), dtype=np.int64)
    order = rng.permutation(len(sizes))
    for name, wanted in ((-1, audit), (1, valid if many == 1 else 0)):
        free = [g for g in order if side[g] == 0]
        taken = 0
        for g in free[:-2]:
            if taken + sizes[g] <= 1.2 * wanted:
                side[g] = name
                taken += int(sizes[g])
        if name == 1 and many == 1 and not taken:  # every group exceeds the share: the smallest
            side[min(free, key=lambda g: sizes[g])] = name
    if many > 1:
        load = np.zeros(many)
        left = order[side[order] == 0]
        for g in left[np.argsort(-sizes[left], kind="stable")]:
            lightest = int(np.argmin(load))
            side[g] = lightest
            load[lightest] += sizes[g]
    return side


def _imbalance(split: Split, labels: Rows | None, n: int, valid: int) -> float:
    """How far the validation parts are from the wanted size and the class shares of the table."""
    wanted = valid if split.kind == "holdout" else n / len(split.valid)
    score = sum(abs(len(v) - wanted) / wanted for v in split.valid)
    if labels is not None:
        classes = int(labels.max()) + 1
        shares = np.bincount(labels) / len(labels)
        for train, rows in zip(split.train, split.valid, strict=True):
            found = np.bincount(labels[rows], minlength=classes) / max(1, len(rows))
            score += float(np.abs(found - shares).sum())
            score += 10.0 * float((np.bincount(labels[train], minlength=classes) == 0).sum())
    return float(score)


def _checked(split: Split, classes: Rows | None) -> Split:
    """The split, if networks can be trained and compared on it; `classes` are codes [N, T]."""
    for k, (train, valid) in enumerate(zip(split.train, split.valid, strict=True)):
        if not len(train) or not len(valid):
            raise DataError(
                f"The {split.how} leaves no rows to {'train' if len(valid) else 'validate'} on "
                f"(part {k + 1}). Use fewer folds, or split another way."
            )
        columns = () if classes is None else tuple(classes.T)
        for labels in columns:
            if len(np.unique(labels[train])) < 2:
                which = " of a target" if len(columns) > 1 else ""
                raise DataError(
                    f"The {split.how} leaves one class{which} only to train on (part {k + 1}). "
                    "Split another way."
                )
    return split

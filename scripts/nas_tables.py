"""Tables of architectures and settings whose results are known, as objectives for a controller.

    from nas_tables import load_tables, play
    table = load_tables("DATA", ["nasbench201_cifar10"])[0]
    found = play(CONTROLLERS["tpe"], table, queries=200, batch=16, seed=0)
    table.regret(found.test[[49, 99, 199]])

`DATA` is a folder with the files named below. A controller sees `validation` alone; `test` is the
score and influences nothing.

- `nasbench201_*` (Dong and Yang 2020): six edges with one of five operations, 15,625 cells, results
  after 12 epochs.
- `nasbench_macro` (Su et al. 2021): chains of eight layers of three kinds, 6,561; the first run is
  the signal, the mean of the other two the score.
- `nasbench_graph_*` (Qin et al. 2022): nine ways to link four operations of nine kinds. Of these
  59,049 descriptions 26,206 are different networks, which is what the file lists; the others are
  equal to one of them (an identity inside a path, operations that may be exchanged), whose results
  they get. Nine are no network and fail.
- `lcbench_*` (Zimmer et al. 2021): seven numeric hyperparameters of a multilayer perceptron, by the
  surrogate of YAHPO Gym (Pfisterer et al. 2022); needs onnxruntime. 1 to 52 epochs; balanced
  accuracy. Median: of 400 listed settings; best: of these and of 20,000 random ones.
- `ecnas` (EC-NAS, Bakhtiarifard et al. 2024): cells of NAS-Bench-101 of up to four vertices, 91
  after 4, 12, 36 or 108 epochs; a description without a path from input to output fails. The
  signal is the first repeat, the score the mean of the test accuracies after 108 epochs.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adanet_py.controllers import Controller
from adanet_py.records import Candidate, History, Result, Scalar, Status
from adanet_py.space import Decision, SearchSpace

Floats = npt.NDArray[np.float64]
Range = tuple[float, float, bool, bool]  # low, high, whole numbers, logarithmic

CELLS = ("cifar10", "cifar100", "imagenet16_120")
GRAPHS = ("cora", "citeseer", "pubmed", "cs", "photo")
RANDOM_SETTINGS = 20_000  # among which the best of a surrogate is looked for
LCBENCH: dict[str, Range] = {
    "batch_size": (16, 512, True, True),
    "learning_rate": (1e-4, 1e-1, False, True),
    "momentum": (0.1, 0.99, False, False),
    "weight_decay": (1e-5, 0.1, False, False),
    "num_layers": (1, 5, True, False),
    "max_units": (64, 1024, True, True),
    "max_dropout": (0.0, 1.0, False, False),
}


@dataclass(frozen=True, eq=False)
class Table:
    """An objective whose results are known.

    `evaluate(candidate, epochs)` gives validation signal and test score, higher is better, NaN
    where there is no such network; `epochs` is one of the table's, the last being all. `best` and
    `median` are of the test score of all that the table lists, after all epochs.
    """

    name: str
    space: SearchSpace
    best: float
    median: float
    evaluate: Callable[[Candidate, int], tuple[float, float]]
    epochs: tuple[int, ...] = (1,)
    rows: tuple[Floats, Floats] | None = field(default=None, repr=False)  # listed: signal, score

    def look_up(self, candidate: Candidate, epochs: int | None = None) -> tuple[float, float]:
        """Validation signal and test score after `epochs`, by default all."""
        return self.evaluate(candidate, self.epochs[-1] if epochs is None else epochs)

    def regret(self, test: npt.ArrayLike) -> Floats:
        """Normalised: 0 for the best of the table, 1 for its median."""
        return (self.best - np.asarray(test, dtype=np.float64)) / (self.best - self.median)


@dataclass(frozen=True)
class Found:
    """What a controller found: after each query [Q] the incumbent's signal and score.

    The incumbent is the first of those with the highest signal; NaN while all have failed.
    `seconds` [calls] is the time of each call of the controller.
    """

    validation: Floats
    test: Floats
    seconds: Floats


def play(controller: Controller, table: Table, queries: int, batch: int, seed: int) -> Found:
    """Let `controller` propose `batch` at a time until `queries` were answered.

    Every call gets a generator of its own, of the seed and the number of the call, as in a search.
    A candidate that is in the history already ends the game with a ValueError, as does an empty
    answer; both break a controller's contract.
    """
    results: tuple[Result, ...] = ()
    known: set[str] = set()
    validation, test, seconds = [], [], []
    best, score = -math.inf, math.nan
    for call in itertools.count():
        wanted = min(batch, queries - len(results))
        if not wanted:
            break
        rng = np.random.default_rng([seed, call])
        start = time.perf_counter()
        proposed = controller(table.space, History(results), wanted, rng)
        seconds.append(time.perf_counter() - start)
        fresh = {c.experiment for c in proposed} - known
        if not proposed or len(fresh) < len(proposed):
            raise ValueError(f"{table.name}: expected {wanted} new candidates, found {proposed}.")
        known |= fresh
        for candidate in proposed:
            signal, found = table.look_up(candidate)
            results += (answer(candidate, signal),)
            if signal > best:
                best, score = signal, found
            validation.append(best)
            test.append(score)
    return Found(np.array(validation), np.array(test), np.array(seconds))


def answer(candidate: Candidate, signal: float) -> Result:
    """What a controller hears: the signal as reward, a failure where there is none."""
    if math.isnan(signal):
        return Result(candidate, Status.FAILED, controller=candidate.by, message="no such network")
    metrics = {"validation": signal}
    return Result(candidate, Status.COMPLETE, metrics, reward=signal, controller=candidate.by)


# ------------------------------------------------------------------------------------ spaces


def space_of_choices(name: str, choices: Mapping[str, Sequence[Scalar]]) -> SearchSpace:
    """A space in which every decision is a choice that decides the program."""
    decisions = [_choice(f"architectures.cell.{k}", tuple(v)) for k, v in choices.items()]
    return _space(name, decisions, tuple(choices), ())


def space_of_ranges(
    name: str, ranges: Mapping[str, tuple[float, float, bool, bool]]
) -> SearchSpace:
    """A space of one program with ranges: low, high, whole numbers, logarithmic."""
    decisions = []
    for knob, (low, high, whole, log) in ranges.items():
        path = ("architectures", "cell", knob)
        kind = "int" if whole else "float"
        domain = (float(low), float(high))
        decisions.append(Decision(".".join(path), path, kind, domain, log=log))
    return _space(name, decisions, (), tuple(ranges))


def _space(
    name: str, decisions: list[Decision], static: tuple[str, ...], numeric: tuple[str, ...]
) -> SearchSpace:
    entries = {"architecture": "cell", "optimizer": "known", "schedule": "known"}
    fixed = [
        Decision(kind, (kind,), "choice", (entry,), static=kind != "schedule")
        for kind, entry in entries.items()
    ]
    knobs: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "architectures.cell": (static, numeric),
        "optimizers.known": ((), ()),
        "schedules.known": ((), ()),
        "general": ((), ()),
    }
    return SearchSpace(name, "results from a table", (*fixed, *decisions), {}, knobs)


def _choice(name: str, values: tuple[Scalar, ...]) -> Decision:
    return Decision(name, tuple(name.split(".")), "choice", values, static=True)


def table_of_rows(
    name: str,
    space: SearchSpace,
    rows: Mapping[Any, int],
    validation: Floats,
    test: Floats,
    key: Callable[[tuple[Scalar, ...]], Any] = lambda values: values,
) -> Table:
    """A table with one fidelity; `key` makes the key of a row of the static values by name."""

    @cache
    def row_of(values: tuple[Scalar, ...]) -> int | None:
        return rows.get(key(values))

    def evaluate(candidate: Candidate, epochs: int) -> tuple[float, float]:
        row = row_of(tuple(candidate.static.values()))
        if row is None:
            return math.nan, math.nan
        return float(validation[row]), float(test[row])

    best, median = float(test.max()), float(np.median(test))
    return Table(name, space, best, median, evaluate, rows=(validation, test))


# ------------------------------------------------------------------------------------ tables


def table_names(data: str | Path) -> list[str]:
    """The tables a data folder has, and that can be read here."""
    folder = find_folder(data)
    names = [f"nasbench201_{d}" for d in CELLS] + ["nasbench_macro"]
    names += [f"nasbench_graph_{d}" for d in GRAPHS]
    names += [f"lcbench_{task}" for task in sorted(_tasks(folder), key=int)]
    return [*names, "ecnas"]


def load_tables(data: str | Path, names: Iterable[str]) -> list[Table]:
    """Tables by name from a data folder. Raises SystemExit for what is not there."""
    folder = find_folder(data)
    known = table_names(data)
    loaders: dict[str, Callable[[Path, str], Table]] = {
        "nasbench201": _nasbench201,
        "nasbench_macro": _nasbench_macro,
        "nasbench_graph": _nasbench_graph,
        "lcbench": _lcbench,
        "ecnas": _ecnas,
    }
    out = []
    for name in names:
        if name not in known:
            raise SystemExit(f"Expected tables out of {', '.join(known)}; found {name}.")
        loader = next(load for prefix, load in loaders.items() if name.startswith(prefix))
        out.append(loader(folder, name))
    return out


def find_folder(data: str | Path) -> Path:
    """The folder with the tables in a data folder, which may be itself."""
    for folder in (Path(data) / "nas_benchmarks", Path(data)):
        if (folder / "nasbench201_12epochs.csv.gz").is_file():
            return folder
    raise SystemExit(f"--data {data}: expected a folder with nasbench201_12epochs.csv.gz in it.")


@cache
def _read(path: Path) -> Any:
    import pandas as pd

    words = {"arch": str, "links": str, "adjacency": str}
    return pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=words)


def _nasbench201(folder: Path, name: str) -> Table:
    frame = _read(folder / "nasbench201_12epochs.csv.gz")
    data = name.removeprefix("nasbench201_")
    operations = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    edges = ("1_from_0", "2_from_0", "2_from_1", "3_from_0", "3_from_1", "3_from_2")
    rows = {}
    for row, text in enumerate(frame["arch"]):
        words = text.replace("+", "").strip("|").replace("||", "|").split("|")
        rows[tuple(word.split("~")[0] for word in words)] = row
    space = space_of_choices(name, {f"edge_{e}": operations for e in edges})
    signal, score = (frame[f"{data}_{part}"].to_numpy(float) for part in ("val", "test"))
    return table_of_rows(name, space, rows, signal, score)


def _nasbench_macro(folder: Path, name: str) -> Table:
    frame = _read(folder / "nasbench_macro_cifar10.csv.gz")
    layers = ("identity", "mb3_k3", "mb6_k5")
    space = space_of_choices(name, {f"layer_{i}": layers for i in range(8)})
    rows = {tuple(layers[int(c)] for c in arch): i for i, arch in enumerate(frame["arch"])}
    score = (frame["acc_1"].to_numpy(float) + frame["acc_2"].to_numpy(float)) / 2.0
    return table_of_rows(name, space, rows, frame["acc_0"].to_numpy(float), score)


def _nasbench_graph(folder: Path, name: str) -> Table:
    frame = _read(folder / f"{name}.csv.gz")
    described = zip(*(frame[k] for k in ("links", "op1", "op2", "op3", "op4")), strict=True)
    rows = {graph_key(values): i for i, values in enumerate(described)}
    kinds = ("gat", "gcn", "gin", "cheb", "sage", "arma", "graph", "fc", "skip")
    choices: dict[str, tuple[str, ...]] = {"links": tuple(sorted(set(frame["links"])))}
    choices |= {f"op{i}": kinds for i in range(1, 5)}
    space = space_of_choices(name, choices)
    signal, score = (frame[k].to_numpy(float) for k in ("valid_perf", "test_perf"))
    return table_of_rows(name, space, rows, signal, score, graph_key)


def graph_key(values: Sequence[Scalar]) -> tuple[Any, ...]:
    """What is the same for equal networks: the tree of operations, identities taken out.

    `values`: the node that each of the four gets its input from (0: the input of the cell), as
    digits, then the four operations. An identity stays where it adds its input to the output
    beside another operation, but not the cell's input.
    """
    links, *kinds = map(str, values)
    source = {node: int(link) for node, link in enumerate(links, 1)}
    kind = dict(enumerate(kinds, 1))
    found = True
    while found:
        found = False
        for node in [n for n in source if kind[n] == "skip"]:
            after = [n for n in source if source[n] == node]
            alone = not any(source[n] == source[node] for n in source if n != node)
            if after or alone or source[node] == 0:
                source |= {n: source[node] for n in after}
                del source[node]
                found = True

    def tree(node: int) -> tuple[Any, ...]:
        return tuple(sorted((kind[n], tree(n)) for n in source if source[n] == node))

    return tree(0)


def _tasks(folder: Path) -> dict[str, int]:
    """The code of every task of the surrogate."""
    codes = json.loads((folder / "yahpo_lcbench/encoding.json").read_text())["OpenML_task_id"]
    return {task: code for task, code in codes.items() if task.isdigit()}


def _lcbench(folder: Path, name: str) -> Table:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = folder / "yahpo_lcbench/model.onnx"
    model = onnxruntime.InferenceSession(str(path), options)
    task = _tasks(folder)[name.removeprefix("lcbench_")]

    def predict(epochs: int, settings: Floats) -> tuple[Floats, Floats]:
        """Balanced accuracies (%) on validation and test rows of settings [n, 7]."""
        numbers = np.column_stack([np.full(len(settings), float(epochs)), settings])
        codes = np.full((len(settings), 1), task, dtype=np.int32)
        given = {"x_cat": codes, "x_cont": numbers.astype(np.float32)}
        (out,) = model.run(None, given)
        return 100.0 * out[:, 3].astype(float), 100.0 * out[:, 5].astype(float)

    def evaluate(candidate: Candidate, epochs: int) -> tuple[float, float]:
        settings = np.array([[candidate.numeric[k] for k in LCBENCH]])
        signal, score = predict(epochs, settings)
        return float(signal[0]), float(score[0])

    space = space_of_ranges(name, LCBENCH)
    listed = _read(folder / "lcbench_configs.csv.gz")[list(LCBENCH)].to_numpy(float)
    cube = np.random.default_rng(0).random((RANDOM_SETTINGS, len(LCBENCH)))
    ranges = space.decisions[3:]
    drawn = [[d.at(u) for d, u in zip(ranges, row, strict=True)] for row in cube]
    signal, score = predict(52, listed)
    best = max(float(score.max()), float(predict(52, np.array(drawn, dtype=float))[1].max()))
    median, epochs = float(np.median(score)), tuple(range(1, 53))
    return Table(name, space, best, median, evaluate, epochs, rows=(signal, score))


def _ecnas(folder: Path, name: str) -> Table:
    frame = _read(folder / "ecnas_4v_multifidelity.csv.gz")
    short = {"conv1x1-bn-relu": "conv1x1", "conv3x3-bn-relu": "conv3x3", "maxpool3x3": "maxpool3x3"}
    signal: dict[tuple[Any, int], float] = {}
    score: dict[Any, list[float]] = {}
    columns = ("adjacency", "ops", "epochs", "repeat", "val_acc", "test_acc")
    for adjacency, ops, epochs, repeat, val, test in frame[list(columns)].itertuples(index=False):
        words = ops.split(",")
        size = len(words)
        edges = [divmod(i, size) for i, c in enumerate(adjacency) if c == "1"]
        key = _cell_key(edges, size, [short[w] for w in words[1:-1]])
        if repeat == 0:
            signal[key, int(epochs)] = 100.0 * val
        if epochs == 108:
            score.setdefault(key, []).append(100.0 * test)
    pairs = [(a, b) for b in range(4) for a in range(b)]
    choices: dict[str, tuple[Scalar, ...]] = {f"edge_{a}_{b}": (False, True) for a, b in pairs}
    choices |= {f"op_{i}": tuple(short.values()) for i in (1, 2)}

    @cache
    def key_of(values: tuple[Scalar, ...]) -> Any:
        present = dict(zip(sorted(choices), values, strict=True))
        edges = [(a, b) for a, b in pairs if present[f"edge_{a}_{b}"]]
        return _cell_key(edges, 4, [str(present["op_1"]), str(present["op_2"])])

    def evaluate(candidate: Candidate, epochs: int) -> tuple[float, float]:
        key = key_of(tuple(candidate.static.values()))
        if key is None:
            return math.nan, math.nan
        return signal[key, epochs], float(np.mean(score[key]))

    scores = np.array([np.mean(s) for s in score.values()])
    signals = np.array([signal[key, 108] for key in score])
    space = space_of_choices(name, choices)
    best, median = float(scores.max()), float(np.median(scores))
    return Table(name, space, best, median, evaluate, (4, 12, 36, 108), (signals, scores))


def _cell_key(edges: list[tuple[int, int]], size: int, ops: list[str]) -> tuple[Any, ...] | None:
    """What is the same for equal cells; None without a path from the first to the last vertex."""
    ahead, back = {0}, {size - 1}
    for _ in range(size):
        ahead |= {b for a, b in edges if a in ahead}
        back |= {a for a, b in edges if b in back}
    kept = sorted(ahead & back)
    if 0 not in kept or size - 1 not in kept:
        return None
    inner = kept[1:-1]
    keys = []
    for order in itertools.permutations(inner):
        place = {0: 0, size - 1: len(inner) + 1} | {v: i for i, v in enumerate(order, 1)}
        lines = sorted((place[a], place[b]) for a, b in edges if a in place and b in place)
        keys.append((tuple(ops[v - 1] for v in order), tuple(lines)))
    return min(keys)

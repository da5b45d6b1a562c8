"""The Python API: `search`, `load` and `train`, in the words of the command line."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adanet_py.config import SearchConfig
from adanet_py.errors import ConfigError
from adanet_py.model import Model
from adanet_py.model import load as load_model
from adanet_py.outcome import SearchResult
from adanet_py.own import engine_for, make_own
from adanet_py.proposing import check_candidate
from adanet_py.records import Candidate, Group, Result
from adanet_py.run import search as run_search

if TYPE_CHECKING:
    from adanet_py.architectures import Architecture
    from adanet_py.space import SearchSpace
    from adanet_py.training.losses import Loss
    from adanet_py.training.optimizers import Optimizer


def search(
    data: Any = None,
    *,
    y: Any = None,
    space: str | os.PathLike[str] | Mapping[str, Any] | SearchSpace = "table",
    controller: Any = None,
    architectures: Sequence[Architecture] = (),
    optimizers: Sequence[Optimizer | type] = (),
    losses: Sequence[Loss] = (),
    types: Mapping[str, str] | None = None,
    on_rung: Callable[[dict[str, Any]], None] | None = None,
    on_candidate: Callable[[Result], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    **options: Any,
) -> SearchResult:
    """Search networks for a table and save the best as a model.

    Main arguments:
        data: path, DataFrame, or features to go with `y`; none: a data set of scikit-learn.
        target, task, metric, loss, quantile, time ("60s", "10m"), candidates, prior, fidelity,
        fidelity_by, batch_order, ensemble, adanet_lambda, adanet_beta, refine_share, folds,
        split, group, time_column, weight, exposure, class_weight, drop, out, seed, device,
        workers, strict, choose, complexity, complexity_weight, complexity_target, max_params,
        max_latency, max_size: as on the command line.

    Other arguments:
        space: name, file or plain values of a search space, or a `SearchSpace`.
        members: who may join the ensemble, "networks" or "any"; or a list of unfitted models of
            scikit-learn, ``[SVC(), "any"]``, which are then fitted beside the search.
        controller: name, function ``(space, history, n, rng) -> candidates``, or Optuna sampler.
        architectures, optimizers, losses: your own, searched beside (or, named in `space`, instead
            of) the built-in; `loss` may name one of yours, which all networks are then trained
            with. An optimizer may be a class of torch.optim.Optimizer.
        types: column -> numeric, boolean, category, date, text or dropped, where inference errs.
        on_rung: called with a dict (group, step, alive, candidate, validation ...) at evaluations.
        on_candidate: called with the `Result` of every finished candidate and baseline.
        on_note: called with every note (dropped columns, fallbacks); the default prints them to
            stderr.

    What is given as an object is trained in this process. Raises AdanetError subclasses for
    unusable input, before any training.
    """
    named = controller if isinstance(controller, str) else None
    if named is not None:
        options["controller"] = named
    if isinstance(space, str | os.PathLike):
        options["space"] = space
    if "members" in options:
        from adanet_py.baselines.model_text import write_members

        options["members"] = write_members(options["members"])
    config = SearchConfig(**options)

    def on_event(event: dict[str, Any]) -> None:
        kind = event["kind"]
        if kind == "note":
            (on_note or _print_note)(event["message"])
        elif kind == "rung" and on_rung is not None:
            on_rung(event)
        elif kind in ("result", "baseline") and on_candidate is not None:
            on_candidate(event["result"])

    return run_search(
        data,
        y=y,
        config=config,
        space=None if isinstance(space, str | os.PathLike) else space,
        controller=controller if named is None else None,
        own=make_own(architectures, optimizers, losses),
        types=types,
        on_event=on_event,
    )


def _print_note(message: str) -> None:
    import sys

    print(message, file=sys.stderr)


def load(
    path: str | os.PathLike[str],
    *,
    architectures: Sequence[Architecture] = (),
    losses: Sequence[Loss] = (),
) -> Model:
    """Load a model from its file or run folder; executes no code from it. See `model.load`."""
    return load_model(path, own=make_own(architectures, losses=losses))


def train(
    candidates: Sequence[Candidate],
    data: Any,
    *,
    y: Any = None,
    target: str | None = None,
    epochs: float = 10,
    engine: str = "auto",
    metric: str | None = None,
    loss: str = "auto",
    quantile: float | None = None,
    folds: int | None = None,
    split: str | os.PathLike[str] | None = None,
    weight: str | None = None,
    exposure: str | None = None,
    class_weight: str | Mapping[Any, float] | None = None,
    seed: int = 0,
    device: str = "cpu",
    architectures: Sequence[Architecture] = (),
    optimizers: Sequence[Optimizer | type] = (),
    losses: Sequence[Loss] = (),
    out: str | os.PathLike[str] | None = None,
) -> list[Result]:
    """Train given candidates, without a search; one `Result` each, in their order.

    What a candidate does not say takes its architecture's default. Candidates of one family
    (architecture, static values, optimizer) are trained fused by the engine "stacked" ("auto", but
    for optimizers that only "separate" can run), or one by one by "separate". All run in this
    process, to the last epoch, without rungs or early stopping. `loss` is for candidates that name
    none, `quantile` the level of the loss quantile. `folds`, `split`, `weight`, `exposure`
    and `class_weight` are those of `search`; `architectures`, `optimizers` (also classes of
    torch.optim.Optimizer) and `losses` your own. `out` keeps weights and predictions in a folder,
    else they are gone.

    Raises SpaceError for unknown names or values, ConfigError and DataError for the rest.
    """
    from adanet_py.placement import make_job
    from adanet_py.plan import Workload, make_group
    from adanet_py.prepare import prepare, read

    own = make_own(architectures, optimizers, losses)
    for candidate in candidates:
        check_candidate(candidate, own)
        engine_for(candidate, own, engine)
    if not 0 < epochs < math.inf:
        raise ConfigError(f"epochs: expected a positive number, found {epochs}.")
    config = SearchConfig(
        target=target,
        metric=metric,
        loss=loss,
        quantile=quantile,
        folds=folds,
        split=split,
        weight=weight,
        exposure=exposure,
        class_weight=class_weight,
        seed=seed,
        device=device,
        candidates=1,
    )
    found = read(config, data if y is None else (data, y), losses=own.all_losses())
    with tempfile.TemporaryDirectory(prefix="adanet_py-") as scratch:
        folder = Path(out) if out is not None else Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        prepared = prepare(found, folder, config.class_weight)
        for candidate in candidates:
            check_candidate(candidate, own, prepared.source.spec)
        load = Workload(
            prepared.source.spec,
            prepared.rows,
            len(prepared.split.train),
            order_seed=seed,
            own=own,
        )
        from adanet_py.training.jobs import run_job

        families: dict[str, list[Candidate]] = {}
        for candidate in dict.fromkeys(candidates):
            families.setdefault(candidate.family, []).append(candidate)
        results: dict[str, Result] = {}
        for index, family in enumerate(families.values()):
            name = engine_for(family[0], own, engine)
            group = _whole(make_group(index, family, [], epochs, load, name))
            job = make_job(group, folder, prepared, device, own)
            answer = run_job(job, lambda event: None, lambda: False)
            for value in answer["results"]:
                result = Result.from_json(value)
                results[result.candidate.id] = result
    return [results[c.id] for c in candidates]


def _whole(group: Group) -> Group:
    """The group without rungs and early stopping."""
    from dataclasses import replace

    return replace(group, rungs=(), keep=(), patience=0)

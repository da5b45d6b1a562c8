"""Run the baselines beside the search, in a thread, and make results of them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from adanet_py.baselines import Baseline, names, run_baselines
from adanet_py.folder import candidate_file
from adanet_py.journal import write_atomic
from adanet_py.member_fits import MemberFits
from adanet_py.metrics import get_metric, score
from adanet_py.outputs import in_own_unit
from adanet_py.prepare import Prepared
from adanet_py.records import Candidate, Result, Status
from adanet_py.reward import RewardRule, with_reward
from adanet_py.tasks import is_regression

NO_LIMIT = 1e9  # seconds
GIVEN = "given"  # who proposed a member that is a model of the user's


class BaselineThread:
    """The baselines a run does not have yet; `first` is there at once, the rest come by `ready`.

    `seconds` bounds boosting; None: nothing does, so that results depend on no clock. With `more`
    the trees that may join an ensemble follow, bounded by `more_seconds`. `given` are the models
    of the user's, which are fitted at the same time. The rest begin after `begin()` or, if it does
    not come, after `patience` seconds.
    """

    def __init__(
        self,
        prepared: Prepared,
        have: Collection[str],
        seconds: float | None,
        seed: int,
        more: bool = False,
        more_seconds: float | None = None,
        given: MemberFits | None = None,
        patience: float = 0.0,
    ) -> None:
        self._given = given
        self._begun = threading.Event()
        self.first: Baseline | None = None
        self._done: queue.SimpleQueue[Baseline | Exception] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        if set(names(more)) <= set(have):
            return
        source = prepared.source
        limit = NO_LIMIT if more_seconds is None else more_seconds
        found = run_baselines(
            source.arrays,
            np.asarray(source.y),
            source.weight,
            prepared.split,
            prepared.task,
            prepared.metric,
            prepared.target,
            seconds=NO_LIMIT if seconds is None else seconds,
            have=have,
            seed=seed,
            loss=source.spec.loss,
            exposure=source.exposure,
            more_seconds=limit if more else None,
        )
        first = next(found)
        self.first = None if first.name in have else first

        def work() -> None:
            self._begun.wait(patience)
            try:
                while not self._ended.is_set():
                    baseline = next(found, None)
                    if baseline is None or self._ended.is_set():
                        return
                    self._done.put(baseline)
            except Exception as error:  # said by the one who takes it; the search goes on
                self._done.put(error)

        self._thread = threading.Thread(target=work, name="baselines", daemon=True)
        self._thread.start()

    def ready(self) -> Iterator[Baseline | Exception]:
        """What has come since the last call."""
        while not self._done.empty():
            yield self._done.get()
        if self._given is not None:
            yield from self._given.ready()

    def begin(self) -> None:
        """Have the rest fitted now."""
        self._begun.set()

    def end(self) -> None:
        """What is fitted now is the last, and no one waits for it."""
        self._ended.set()
        self._begun.set()
        if self._given is not None:
            self._given.end()

    def wait(self, seconds: float) -> bool:
        """Wait for the end of all, up to `seconds`; whether it has come."""
        if self._thread is not None:
            self._thread.join(seconds)
        ended = self._thread is None or not self._thread.is_alive()
        return ended and (self._given is None or self._given.wait(seconds))


def baseline_result(
    baseline: Baseline,
    prepared: Prepared,
    folder: Path,
    constant: float | None,
    rule: RewardRule | None = None,
) -> Result:
    """Score a baseline and store its predictions and arrays; `constant`: validation of that one."""
    from safetensors.numpy import save

    candidate = Candidate(baseline.name, optimizer="", schedule="")
    given = "onnx" in (baseline.member or {})
    metric, split = get_metric(prepared.metric), prepared.split
    metrics = {
        "validation": _score(baseline.predictions_valid, prepared, np.concatenate(split.valid))
    }
    if len(split.audit):
        metrics["audit"] = _score(baseline.predictions_audit, prepared, split.audit)
    arrays = {"predictions/validation": np.ascontiguousarray(baseline.predictions_valid)}
    if len(split.audit):
        arrays["predictions/audit"] = np.ascontiguousarray(baseline.predictions_audit)
    arrays |= {f"member/{n}": np.ascontiguousarray(v) for n, v in (baseline.member or {}).items()}
    (folder / "candidates").mkdir(exist_ok=True)
    write_atomic(candidate_file(folder, candidate.id), save(arrays))
    result = Result(
        candidate,
        Status.BASELINE,
        metrics=metrics,
        seconds=baseline.seconds,
        parameters=baseline.parameters,
        controller=GIVEN if given else "baseline",
        message="; ".join(filter(None, (Status.BASELINE.value, baseline.message))),
    )
    unit = metrics["validation"] if constant is None else constant
    return with_reward(result, metric, unit, rule)


def _score(predictions: np.ndarray, prepared: Prepared, rows: np.ndarray) -> float:
    """The metric of probabilities or values on `rows`."""
    source, target = prepared.source, prepared.target
    y = np.asarray(source.y[rows])
    if is_regression(prepared.task):
        y = in_own_unit(y, target.mean, target.scale)
    weight = None if source.weight is None else np.asarray(source.weight[rows])
    return score(get_metric(prepared.metric), y, predictions, weight)

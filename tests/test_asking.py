"""A sampler of Optuna that proposes many from one look at the past (controllers/asking.py)."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import FloatDistribution

from adanet_py.controllers import from_sampler
from adanet_py.controllers.asking import SamplesMany
from adanet_py.controllers.optuna_tpe import DRAWN, _sampler
from adanet_py.records import History, Result, Status
from adanet_py.space import sample

sys.path.insert(0, str(Path(__file__).parent))
from spaces import ZOO

SPACE = ZOO["all types"]


def study_of(values: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=_sampler(3))
    kind = {"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(0.0, 1.0)}
    rng = np.random.default_rng(0)
    for x, y in rng.random((values, 2)):
        study.add_trial(
            optuna.trial.create_trial(
                params={"x": x, "y": y}, distributions=kind, value=-((x - 0.3) ** 2)
            )
        )
    return study


def many(study: optuna.Study) -> list[Mapping[str, Any]]:
    sampler = study.sampler
    assert isinstance(sampler, SamplesMany)
    study.ask()
    trial = study.get_trials(deepcopy=False)[-1]
    space = sampler.infer_relative_search_space(study, trial)
    return [*sampler.sample_many(study, trial, space)]


def test_the_first_of_many_is_what_optuna_would_propose() -> None:
    batch = many(study_of(40))
    assert len(batch) == DRAWN
    study = study_of(40)
    study.sampler = optuna.samplers.TPESampler(
        seed=3, multivariate=True, constant_liar=True, n_ei_candidates=DRAWN
    )
    alone = study.ask().relative_params
    assert batch[0] == alone


def test_many_are_near_the_best_of_the_past() -> None:
    gaps = np.array([abs(found["x"] - 0.3) for found in many(study_of(40))])
    assert gaps[:8].max() < 0.2
    assert gaps[:8].mean() < gaps.mean()


def test_there_are_none_while_there_are_too_few_trials() -> None:
    assert many(study_of(5)) == []


def test_a_batch_looks_at_the_past_once() -> None:
    looks = 0
    kind = type(_sampler(0))

    class Counted(kind):  # type: ignore[misc, valid-type]
        def sample_many(self, *given: Any) -> Iterator[Mapping[str, Any]]:
            nonlocal looks
            looks += 1
            found: Iterator[Mapping[str, Any]] = super().sample_many(*given)
            return found

    known = [sample(SPACE, np.random.default_rng([4, i])) for i in range(40)]
    results = tuple(Result(c, Status.COMPLETE, reward=float(i % 7)) for i, c in enumerate(known))
    controller = from_sampler(lambda seed: Counted(seed=seed, multivariate=True))
    proposed = controller(SPACE, History(results), 8, np.random.default_rng(0))
    assert len({c.experiment for c in proposed}) == 8
    assert looks == 2  # of programs and of settings

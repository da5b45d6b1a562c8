"""One network that has learned what an ensemble predicts: knowledge distillation.

A student is trained on the rows of the run, of each on a mixture of two losses,

    L = (1 - a) Phi(y, z) + a T^2 Phi(softmax(t / T), z / T),

with its outputs z, the label y, the teacher's outputs t and the temperature T (Hinton, Vinyals &
Dean 2015, arXiv 1503.02531, sec. 2); of numbers Phi is the squared error, without T. The teacher is
the ensemble, or the best network itself (born-again networks, Furlanello et al. 2018, arXiv
1805.04770); the student has the architecture and settings of the best network. `a` is a number, or
of each row how far the teacher can be trusted there: its probability of the label, of numbers
1 / (1 + its squared error over the mean of these). In fold f the teacher is fold f of its
members, which saw the rows the student trains on and no other.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adanet_py.ensemble.links import Link
from adanet_py.ensembling import Grown, Options, Scores
from adanet_py.errors import ConfigError, RunError, check_known
from adanet_py.export import probe
from adanet_py.leaderboard import standing
from adanet_py.member import Member
from adanet_py.metrics import get_metric, score
from adanet_py.model import Model
from adanet_py.outputs import in_own_unit, predictions
from adanet_py.prepare import Prepared
from adanet_py.records import Result
from adanet_py.regrow import grow_again, model_of, prepare_again, save_checked
from adanet_py.state import read_state
from adanet_py.tasks import has_several_targets, is_regression

if TYPE_CHECKING:
    from torch import Tensor

    from adanet_py.training.groups import Track
    from adanet_py.training.losses import Loss

OUT = "distilled.adanet"
TEACHERS = ("ensemble", "single")
_LOSS = "distillation"


@dataclass(frozen=True)
class Distilling:
    """How a student learns: `alpha` None is that of each row, see above."""

    teacher: str = "ensemble"
    alpha: float | None = None
    temperature: float = 2.0

    def __post_init__(self) -> None:
        check_known("teacher", self.teacher, TEACHERS, ConfigError)
        if self.alpha is not None and not 0.0 <= self.alpha <= 1.0:
            raise ConfigError(f"--alpha: expected a number from 0 to 1, found {self.alpha}.")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ConfigError(
                f"--temperature: expected a number above 0, found {self.temperature}."
            )


@dataclass(frozen=True)
class Distilled:
    """The student's model, where it is saved, its scores, and those of what it is compared with."""

    model: Model
    path: Path
    scores: Scores
    grown: Grown


def distil(
    run: str | os.PathLike[str],
    options: Options,
    how: Distilling,
    out: str | os.PathLike[str] | None = None,
    *,
    data: Any = None,
) -> Distilled:
    """Distil the ensemble of a run that has ended into one network; its model goes to `out`.

    By default that is `distilled.adanet` in the run. `data` must be given where the run did not
    read a file, or that is gone. Raises RunError for other data than the run's.
    """
    folder = Path(run)
    held, grown = grow_again(folder, options)
    networks = standing(read_state(folder).finished())
    if not networks:
        raise RunError("Expected a run with a trained network, found none to distil into.")
    best = networks[0]
    teacher = model_of(folder, None if how.teacher == "ensemble" else best, grown)
    with tempfile.TemporaryDirectory(prefix="adanet_py-distil-") as scratch:
        prepared = prepare_again(folder, Path(scratch), data)
        track = _train(Path(scratch), folder, prepared, best, teacher, how)
        model, validation = _student(prepared, teacher, track)
        audit = math.nan
        rows = prepared.split.audit
        if len(rows):
            found = model.outputs_of(_features(prepared, rows))
            y = held.audit.y
            if is_regression(held.task):
                y = in_own_unit(y, held.mean, held.scale)
            audit = score(get_metric(held.metric), y, found, held.audit.weight)
        scores = Scores(validation, audit)
        about: dict[str, Any] = {"candidate": track.candidate.id, "teacher": how.teacher}
        about |= {"validation": validation, "audit": None if math.isnan(audit) else audit}
        model = replace(model, about={**about, "parameters": best.parameters})
        outputs = track.outputs
        assert outputs is not None
        expected, fold = probe(prepared.split, outputs)
        frame = Path(scratch) / "cache" / "probe.feather"
        path = Path(out) if out is not None else folder / OUT
        save_checked(model, path, [expected], fold, frame)
    return Distilled(model, path, scores, grown)


def _features(prepared: Prepared, rows: np.ndarray | slice) -> dict[str, np.ndarray]:
    return {name: np.array(array[rows]) for name, array in prepared.source.arrays.items()}


def teach(model: Model, features: Mapping[str, np.ndarray], fold: int) -> np.ndarray:
    """What fold `fold` of a model's members makes of rows: outputs as a network's [N, C]."""
    found = [model.member_outputs(member, dict(features), fold) for member in model.members]
    if model.weights is None:
        return found[0]
    link = Link.of_spec(model.spec)
    return link.values(model.weights.combine(np.stack([link.raw(each) for each in found])))


def trust(task: str, y: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """How far a teacher with these outputs [N, C] can be trusted on rows with targets y: [N]."""
    if is_regression(task):
        error = ((outputs - y.reshape(len(y), -1)) ** 2).mean(axis=1)
        return np.asarray(1.0 / (1.0 + error / max(float(error.mean()), 1e-12)))
    p = predictions(task, outputs)
    if has_several_targets(task):
        return np.asarray(np.where(y > 0.5, p, 1.0 - p).mean(axis=1))
    return np.asarray(p[np.arange(len(y)), y.astype(np.int64)])


def make_loss(task: str, outputs: int, temperature: float) -> Loss:
    """L above for targets [..., L + C + 1]: the labels, the teacher's outputs, a."""
    from torch.nn import functional as F

    from adanet_py.training.losses import Loss

    t = temperature

    def rows(z: Tensor, target: Tensor, hp: Mapping[str, Tensor]) -> Tensor:
        label, taught = target[..., : -outputs - 1], target[..., -outputs - 1 : -1]
        share = target[..., -1]
        taught = taught.unsqueeze(-2)  # [K or 1, B, 1, C], beside z [K, B, M, C]
        if is_regression(task):
            hard = ((z - label.unsqueeze(-2)) ** 2).mean((-2, -1))
            soft = ((z - taught) ** 2).mean((-2, -1))
        elif task == "multiclass":
            index = label.long().unsqueeze(-2).expand(*z.shape[:-1], 1)
            hard = -z.log_softmax(-1).gather(-1, index).squeeze(-1).mean(-1)
            each = -((taught / t).softmax(-1) * (z / t).log_softmax(-1)).sum(-1)
            soft = t * t * each.mean(-1)
        else:
            hard = (F.softplus(z) - label.unsqueeze(-2) * z).mean((-2, -1))
            q = (taught / t).sigmoid()
            soft = t * t * (F.softplus(z / t) - q * z / t).mean((-2, -1))
        return (1.0 - share) * hard + share * soft

    return Loss(_LOSS, "the teacher's outputs and the labels", (task,), rows)


def _train(
    scratch: Path,
    folder: Path,
    prepared: Prepared,
    best: Result,
    teacher: Model,
    how: Distilling,
) -> Track:
    """Train the student in every fold; each fold has rows of its own, for its teacher differs."""
    import torch

    from adanet_py.own import Own, engine_for
    from adanet_py.training.batches import BatchOrder
    from adanet_py.training.groups import Plan, train
    from adanet_py.training.setting import Setting, make_program

    own, split, source = Own(), prepared.split, prepared.source
    static = {k: v for k, v in best.candidate.static.items() if k != "loss"}
    student = replace(
        best.candidate, static=static, seed=best.candidate.seed + 1,
        parent=best.candidate.id, move="distil",
    )  # fmt: skip
    group = replace(
        read_state(folder).groups[best.group], candidates=(student,), rungs=(), keep=(), bars=(),
        controllers=(), stop_at=None, engine=engine_for(student, own),
    )  # fmt: skip
    setting = Setting(
        scratch, source, split, own.all_architectures()[student.architecture], prepared.metric,
        prepared.target_scale, list(prepared.class_weight) if prepared.class_weight else None,
        torch.device("cpu"), lambda event: None, lambda: False,
    )  # fmt: skip
    program = make_program(group, setting)
    n, y = len(source), np.asarray(source.y)
    features = _features(prepared, slice(None))
    targets = [_targets(teacher, features, y, fold, how) for fold in range(len(split.train))]
    data = program.data
    folds = len(targets)
    data = replace(
        data,
        numeric=data.numeric.repeat(folds, 1),
        category=data.category.repeat(folds, 1),
        target=torch.from_numpy(np.concatenate(targets)).to(data.numeric.dtype),
        weight=None if data.weight is None else data.weight.repeat(folds),
    )
    rows = tuple(r + n * f for f, r in enumerate(split.train))
    loss = make_loss(prepared.task, source.spec.n_outputs, how.temperature)
    program = replace(
        program,
        order=BatchOrder(rows, program.order.batch_size, group.order_seed),
        data=data,
        spec=replace(source.spec, loss=_LOSS),
        losses={_LOSS: loss},
        label_weight=None,
    )
    valid = np.concatenate(split.valid)
    plan = Plan(
        group=group,
        valid=tuple(v + n * f for f, v in enumerate(split.valid)),
        scorer=setting.scorer(valid),
        checkpoint=scratch / "checkpoint",
        checkpoint_seconds=math.inf,
        emit=setting.emit,
        should_stop=setting.should_stop,
    )
    [track] = train(program, plan)
    if track.outputs is None or track.status is None or not track.status.usable:
        words = "nothing" if track.status is None else track.status.value
        raise RunError(f"The student was not trained to a usable end: {words}.")
    return track


def _targets(
    teacher: Model, features: Mapping[str, np.ndarray], y: np.ndarray, fold: int, how: Distilling
) -> np.ndarray:
    """Labels, the teacher's outputs and the weight of these, of every row [N, L + C + 1]."""
    outputs = teach(teacher, features, fold)
    share = np.full(len(y), how.alpha)
    if how.alpha is None:
        share = trust(teacher.task, y, outputs)
    return np.concatenate([y.reshape(len(y), -1), outputs, share[:, None]], axis=1)


def _student(prepared: Prepared, teacher: Model, track: Track) -> tuple[Model, float]:
    """The student's model, and its validation score as those of other networks."""
    from adanet_py.training.scoring import Scorer

    rows = np.concatenate(prepared.split.valid)
    source = prepared.source
    weight = None if source.weight is None else np.asarray(source.weight[rows])
    y = np.asarray(source.y[rows])
    scorer = Scorer.make(prepared.metric, prepared.task, y, weight, prepared.target_scale)
    assert track.outputs is not None
    arrays = {n: v.cpu().contiguous().numpy() for n, v in track.weights.items()}
    member = Member(
        "network", arrays, track.candidate, len(prepared.split.train),
        scorer.temperature(track.outputs),
    )  # fmt: skip
    model = replace(teacher, members=(member,), weights=None)
    return model, scorer.cross_fitted(track.outputs)

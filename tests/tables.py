"""Small synthetic tables, and how leaderboards are compared."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pandas as pd

CLOCKS = ["seconds", "latency_ms"]


def table(task="binary", rows=120, seed=0):
    """Two numbers (one with gaps), one category, and a target the three decide."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "size": rng.normal(size=rows),
            "weight": rng.normal(size=rows).round(2),
            "colour": rng.choice(["red", "green", "blue"], rows),
        }
    )
    value = frame["size"] + frame["weight"] + (frame["colour"] == "red")
    value = value + 0.3 * rng.normal(size=rows)
    frame.loc[::17, "weight"] = np.nan
    if task == "binary":
        frame["target"] = np.where(value > 0, "yes", "no")
    elif task == "multiclass":
        frame["target"] = pd.qcut(value, 3, labels=["low", "middle", "high"]).astype(str)
    else:
        frame["target"] = 100.0 + 10.0 * value
    return frame


def timeless(run):
    """The leaderboard of a run as text, without the columns a clock fills."""
    frame = pd.read_csv(run / "leaderboard.csv")
    return frame.drop(columns=CLOCKS).to_csv(index=False)


def few_trees(monkeypatch):
    """Have baselines of trees made of a few only."""
    from adanet_py.baselines import averaging, boosting

    monkeypatch.setattr(averaging, "MOST_TREES", 8)
    monkeypatch.setattr(boosting, "BOOSTING_ITERATIONS", 10)
    monkeypatch.setattr(boosting, "STOPPED_ITERATIONS", 20)


def check_here(folder, prepared, result, own, nursery=None, grown=None, beside=None):
    """As `export.start_check`, but the model is reloaded in this process: no other is started."""
    from adanet_py import export, model

    path = folder / "model.adanet.new"
    export.make_model(folder, prepared, result, own, grown).save(path)
    loaded = model.load(path, own=own)
    expected, fold = export.expect(folder, prepared.split, loaded)
    frame = pd.read_feather(folder / "cache" / "probe.feather")
    difference = export.verify(loaded, frame, fold, expected)
    return export.Check(result, path, None, difference, grown=grown)


def reload_here(model, cache):
    """As `regrow.reload_apart`, in this process."""
    from adanet_py import export

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        export.main([str(model), str(cache)])
    return said.getvalue(), ""

"""`explain`: why a network stands where it stands."""

from __future__ import annotations

import json

import pytest
from tables import check_here, table
from typer.testing import CliRunner

import adanet_py
from adanet_py import loop, saving
from adanet_py.cli import app
from adanet_py.errors import RunError
from adanet_py.explain import DECISIONS, RIVALS, explain, lines
from adanet_py.state import read_state


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with an ensemble, refined, in which every second child was accepted."""
    folder = tmp_path_factory.mktemp("explained")
    table("regression", 150).to_csv(folder / "table.csv", index=False)
    judge, place = loop.judged, iter(range(1000))

    def judged(child, parent, objective, doubt):
        found = judge(child, parent, objective, doubt)
        if found.accepted is None:
            return found
        so = next(place) % 2 == 0
        return found.replace(accepted=so, verdict="accepted: so" if so else "rolled back: so")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "start_check", check_here)
        patch.setattr(loop, "judged", judged)
        patch.setattr("adanet_py.plan.EPOCHS", (6, 10))
        adanet_py.search(
            folder / "table.csv", out=folder / "run", space="tiny", folds=1, candidates=16,
            workers=0, on_note=lambda m: None,
        )  # fmt: skip
        for _ in range(2):
            adanet_py.refine_run(
                folder / "run", candidates=16, moves=["train_on"], on_event=lambda e: None
            )
    return folder / "run"


def test_by_default_it_is_the_model_and_everything_agrees_with_the_leaderboard(run):
    found = explain(run)
    board = adanet_py.run.leaderboard(run).set_index("id")
    assert found["model"] is True
    assert board.loc[found["candidate"], "chosen"]
    assert found["metric"] == "rmse"
    assert found["place"]["rank"] == board.loc[found["candidate"], "rank"]
    ranks = [r["rank"] for r in found["rivals"]]
    assert ranks == list(range(found["place"]["rank"] + 1, found["place"]["rank"] + 1 + RIVALS))
    for rival in found["rivals"]:
        assert rival["why"] == board.loc[rival["id"], "why"]
    assert 0 < len(found["decisions"]) <= DECISIONS
    assert {"decision", "value", "importance"} <= found["decisions"][0].keys()


def test_the_chain_leads_from_a_network_of_its_own_to_the_child(run):
    state = read_state(run)
    depth = {}
    for result in state.finished():
        child = result.candidate
        depth[child.id] = depth[child.parent] + 1 if child.inherits else 0
    deepest = max(depth, key=lambda name: depth[name])
    assert depth[deepest] >= 2  # a child of an accepted child
    chain = explain(run, deepest)["chain"]
    assert len(chain) == depth[deepest] + 1
    assert chain[-1]["id"] == deepest
    assert chain[0]["move"] is None
    for link, before in zip(chain[1:], chain, strict=False):
        result = state.by_id[link["id"]]
        assert result.candidate.parent == before["id"]
        assert link["move"] == "train_on"
        assert link["gain"] == pytest.approx(result.gain)
        assert link["difference"] == 0
        assert link["verdict"] == result.verdict
    assert all(link["accepted"] is True for link in chain[1:-1])


def test_what_was_rolled_back_has_no_rank_and_the_first_as_rivals(run):
    back = next(r for r in read_state(run).finished() if r.accepted is False)
    found = explain(run, back.candidate.id)
    assert found["place"]["rank"] is None
    assert found["place"]["why"] == back.verdict
    assert [r["rank"] for r in found["rivals"]] == [1, 2, 3]
    assert any("no rank" in line for line in lines(found))


def test_the_ensemble_is_told_with_its_weights(run):
    found, state = explain(run)["ensemble"], read_state(run).ensemble
    assert [m["id"] for m in found["members"]] == state["members"]
    assert all(m["weight"] > 0 for m in found["members"])
    assert found["validation"] == state["scores"]["ensemble"]["validation"]
    text = "\n".join(lines(explain(run)))
    assert all(m["id"] in text for m in found["members"])


def test_the_beginning_of_an_identifier_is_enough_and_an_unknown_one_is_said(run):
    name = explain(run)["candidate"]
    assert explain(run, name[:8])["candidate"] == name
    with pytest.raises(RunError, match="found none"):
        explain(run, "zzzz")
    with pytest.raises(RunError, match="begin with it"):
        explain(run, "")


def test_on_the_command_line_it_is_text_or_one_json_object(run):
    said = CliRunner().invoke(app, ["explain", str(run)])
    assert said.exit_code == 0
    assert said.stdout.splitlines() == lines(explain(run))
    said = CliRunner().invoke(app, ["explain", str(run), "--json"])
    assert json.loads(said.stdout)["candidate"] == explain(run)["candidate"]
    said = CliRunner().invoke(app, ["explain", str(run), "zzzz"])
    assert said.exit_code == 2

"""Kill a search with SIGKILL at random moments, go on each time, compare the leaderboards.

    python scripts/kill_test.py DATA [search options] [--kills 20] [--workers 2] [--folder DIR]

The search must be bounded by --candidates alone. Prints one JSON object; exit code 1 if the
leaderboards differ (columns a clock fills apart) or a process outlived its killed parent.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STARTUP = 3.0  # seconds before a search begins to train
CLOCKS = ("seconds", "latency_ms")
ROOT = Path(__file__).parents[1]


def run(options: list[str], folder: Path, kills: int, workers: int, seed: int) -> dict[str, Any]:
    """One search in peace and one killed `kills` times, both under `folder`."""
    begun = time.monotonic()
    _finish(_start(options, folder / "whole", workers))
    whole = time.monotonic() - begun
    rng = random.Random(seed)
    survivors: list[int] = []
    done, tries = 0, 0
    while done < kills and tries < 2 * kills:
        tries += 1
        process = _start(options, folder / "killed", workers)
        # Short enough that a run lives through about as many kills as are wanted.
        time.sleep(rng.uniform(0.0, STARTUP + 2.0 * whole / kills))
        if process.poll() is not None:
            _finish(process)
            break
        family = _descendants(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        done += 1
        end = time.monotonic() + 2.0
        while (alive := [p for p in family if _alive(p)]) and time.monotonic() < end:
            time.sleep(0.05)
        survivors += alive
    _finish(_start(options, folder / "killed", workers))
    one, other = (leaderboard(folder / name) for name in ("whole", "killed"))
    return {
        "kills": done,
        "survivors": survivors,
        "identical": one == other,
        "rows": len(one) - 1,
        "seconds_uninterrupted": round(whole, 1),
    }


def leaderboard(folder: Path) -> list[list[str]]:
    """The cells of a leaderboard, those a clock fills left out."""
    import csv

    with (folder / "leaderboard.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    kept = [i for i, name in enumerate(rows[0]) if name not in CLOCKS]
    return [[row[i] for i in kept] for row in rows]


def _start(options: list[str], out: Path, workers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "adanet_py", "search", *options]
    command += ["--out", str(out), "--workers", str(workers), "--quiet"]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _finish(process: subprocess.Popen[str]) -> None:
    out, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"the search failed with exit code {process.returncode}:\n{out}")


def _descendants(pid: int) -> list[int]:
    """Process ids of the children of `pid`, their children, and so on."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = [int(c) for c in (task / "children").read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *_descendants(child)]
    return found


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--folder", type=Path, help="keep the runs there")
    own, options = parser.parse_known_args()
    words = {option.partition("=")[0] for option in options}
    if "--candidates" not in words or "--time" in words:
        parser.error("expected a search bounded by --candidates, without --time")
    with tempfile.TemporaryDirectory(prefix="adanet_py-kills-") as scratch:
        found = run(options, own.folder or Path(scratch), own.kills, own.workers, own.seed)
    print(json.dumps(found | {"seed": own.seed}))
    return 0 if found["identical"] and not found["survivors"] else 1


if __name__ == "__main__":
    raise SystemExit(main())

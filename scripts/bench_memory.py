"""Measure a command: seconds, and the peak memory of it and all its descendants together.

    python scripts/bench_memory.py [--every 0.1] [--each] -- COMMAND ...

Memory is the summed PSS (proportional set size: a page shared by n processes counts 1/n in each),
or RSS where PSS cannot be read, which counts shared pages every time. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=float, default=0.1, help="seconds between two looks")
    parser.add_argument("--each", action="store_true", help="the processes at the peak, one each")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    begun = time.monotonic()
    process = subprocess.Popen(options.command, stdout=sys.stderr)
    peak, at, kind, each = 0, 0.0, "pss", {}
    while process.poll() is None:
        found = {p: m for p in family(process.pid) if (m := memory(p)) is not None}
        total = sum(size for size, _ in found.values())
        if total > peak:
            peak, at = total, time.monotonic() - begun
            kind = "pss" if all(k == "pss" for _, k in found.values()) else "rss"
            each = {f"{p} {command(p)}": round(size / 1e6, 1) for p, (size, _) in found.items()}
        time.sleep(options.every)
    said = {
        "seconds": round(time.monotonic() - begun, 2),
        "exit_code": process.returncode,
        "peak_mb": round(peak / 1e6, 1),
        "peak_after_s": round(at, 1),
        "kind": kind,
    }
    print(json.dumps(said | ({"each_mb": each} if options.each else {})))
    return process.returncode


def family(pid: int) -> list[int]:
    """`pid` and its descendants."""
    try:
        import psutil

        root = psutil.Process(pid)
        return [pid, *(p.pid for p in root.children(recursive=True))]
    except ImportError:
        pass
    except psutil.Error:
        return []
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            found += family(int(child))
    return found


def memory(pid: int) -> tuple[int, str] | None:
    """Bytes of a process and whether they are PSS or RSS; None if it is gone."""
    for name, key, kind in (("smaps_rollup", "Pss:", "pss"), ("status", "VmRSS:", "rss")):
        try:
            text = Path(f"/proc/{pid}/{name}").read_text()
        except OSError:
            continue
        for line in text.splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024, kind
    try:
        import psutil

        return psutil.Process(pid).memory_info().rss, "rss"
    except Exception:  # gone, or no psutil where there is no /proc
        return None


def command(pid: int) -> str:
    """What a process is, in a few words."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "?"
    return next((w for w in words if w.startswith("adanet_py")), " ".join(words)[:60])


if __name__ == "__main__":
    raise SystemExit(main())

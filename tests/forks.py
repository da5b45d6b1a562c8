"""Run searches in forked processes that can be killed: imports are paid once.

``python tests/forks.py`` answers JSON lines on stdin, {"options": ..., "env": ..., "patch": ...},
with {"status": exit status of the fork, negative for a signal, "out": what it said}.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path


class Forks:
    """The parent's side; a context manager."""

    def __enter__(self):
        env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        root = str(Path(__file__).parents[1])
        env["PYTHONPATH"] = os.pathsep.join([root, env.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
        )
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def search(self, data, fault=None, checkpoint_seconds=5.0, **options):
        """(exit status, what happened) of `adanet_py.search` in a fork, nothing printed."""
        request = {
            "data": str(data),
            "options": {"workers": 0, **options},
            "fault": fault,
            "checkpoint_seconds": checkpoint_seconds,
        }
        self.process.stdin.write(json.dumps(request, default=str).encode() + b"\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["status"], answer["events"]


def _serve():
    from tables import check_here

    import adanet_py
    import adanet_py.run
    import adanet_py.training.jobs
    from adanet_py import loop, saving
    from adanet_py.errors import AdanetError

    for name in ("pandas", "sklearn.ensemble", "sklearn.linear_model", "pyarrow.feather"):
        __import__(name)

    saving.start_check = check_here

    def tell(event, out):
        print(json.dumps(event), file=out, flush=True)

    for line in sys.stdin:
        request = json.loads(line)
        receive, send = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(receive)
                second = os.dup(send)
                with os.fdopen(send, "w") as out:
                    if request["fault"]:
                        os.environ["ADANET_FAULT"] = request["fault"]
                    loop.CHECKPOINT_SECONDS = request["checkpoint_seconds"]
                    adanet_py.search(
                        request["data"],
                        **request["options"],
                        on_note=lambda m: tell({"note": m}, out),
                        on_rung=lambda e: tell({"rung": [e["group"], e["step"]]}, out),
                    )
                    out.flush()
                os._exit(0)
            except AdanetError as error:
                with os.fdopen(second, "w") as out:
                    tell({"error": str(error)}, out)
                os._exit(error.exit_code)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        os.close(send)
        with os.fdopen(receive) as said:
            events = [json.loads(text) for text in said if text.endswith("\n")]
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps({"status": status, "events": events}), flush=True)


if __name__ == "__main__":
    _serve()

"""Errors that people read: what was expected, what was found, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable


class AdanetError(Exception):
    """An error caused by input; the command line prints it without a traceback, exit code 2."""

    exit_code = 2


class DataError(AdanetError):
    """The data cannot be used as given."""


class SpaceError(AdanetError):
    """A search space, or a candidate outside it, cannot be used."""


class ConfigError(AdanetError):
    """An option has a value that cannot be used."""


class RunError(AdanetError):
    """A run folder or model file cannot be used (missing, locked, damaged, too new)."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest known name, or an empty string."""
    names = [str(k) for k in known]
    lower = {k.lower(): k for k in names}
    given = str(name).lower()
    close = difflib.get_close_matches(given, list(lower), n=3, cutoff=0.6)
    # Two letters swapped are the likeliest slip, and difflib counts them as two.
    close.sort(key=lambda match: sorted(match) != sorted(given))
    return f" Did you mean {lower[close[0]]!r}?" if close else ""


def check_known(what: str, name: str, known: Collection[str], error: type[AdanetError]) -> None:
    """Raise `error` unless `name` is among `known`; the message lists them and the nearest."""
    if name not in known:
        names = sorted(str(k) for k in known)
        listed = ", ".join(names[:40]) + (" ..." if len(names) > 40 else "")
        raise error(f"Unknown {what} {name!r}.{nearest(name, names)} Known: {listed}.")

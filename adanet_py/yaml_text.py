"""YAML of plain values, read and written by libyaml where PyYAML was built with it: ten times
faster, which every command gains from."""

from __future__ import annotations

from typing import Any

import yaml

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def load_yaml(text: str) -> Any:
    """The plain values of one document; yaml.YAMLError where it is none. No object is made."""
    return yaml.load(text, Loader=LOADER)


def dump_yaml(value: Any) -> str:
    """Plain values as text, keys in their order."""
    return yaml.dump(value, Dumper=_DUMPER, sort_keys=False)

"""The file of a model: a zip of three parts, of JSON and safetensors only.

``manifest.json`` describes the model and holds checksums of the other two, ``preprocessor.json``
says how tables are read, ``weights.safetensors`` holds all arrays. Nothing in it is executed:
architectures and losses are named and looked up, never imported from a path in the file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from adanet_py.errors import RunError

VERSION = 4  # of models with ONNX graphs; 3 with trees, 2 of ensembles of others, 1 of a single one
MODEL_FILE = "model.adanet"  # its name in a run folder
_FORMAT = "adanet_py model"
_PARTS = ("manifest.json", "preprocessor.json", "weights.safetensors")


class Content(NamedTuple):
    """What is in a model file, read."""

    manifest: dict[str, Any]
    preprocessor: dict[str, Any]
    arrays: dict[str, np.ndarray]


def oldest_version(kinds: Collection[str], ensemble: bool) -> int:
    """The oldest format that has what the model has: members of these kinds, mixed or alone."""
    if "onnx" in kinds:
        return VERSION
    if "trees" in kinds:
        return 3
    return 2 if ensemble else 1


def pack(content: Content) -> bytes:
    """The bytes of the file; equal contents give equal bytes."""
    from safetensors.numpy import save

    weights = save({n: np.ascontiguousarray(v) for n, v in content.arrays.items()})
    preprocessor = json.dumps(content.preprocessor).encode()
    manifest = {
        "format": _FORMAT,
        **content.manifest,
        "sha256": {
            "preprocessor.json": hashlib.sha256(preprocessor).hexdigest(),
            "weights.safetensors": hashlib.sha256(weights).hexdigest(),
        },
    }
    parts = (json.dumps(manifest).encode(), preprocessor, weights)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, part in zip(_PARTS, parts, strict=True):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), part)
    return buffer.getvalue()


def find(path: str | os.PathLike[str]) -> Path:
    """The model file at `path`, which is that or a run folder with one; RunError for neither."""
    found = Path(path)
    if found.is_dir():
        found = found / MODEL_FILE
    if found.is_file():
        return found
    hint = "Give a folder a search printed as its run, or a file saved from one."
    if Path(path).is_dir() and (Path(path) / "journal.jsonl").exists():
        hint = "That run has not saved a model yet: go on with it by `resume`."
    raise RunError(f"Expected a model file or a run folder with one at {path}, found none. {hint}")


def unpack(path: Path) -> Content:
    """What is in a model file, its checksums compared.

    Raises RunError for one that is damaged, of something else or of a newer version.
    """
    from safetensors.numpy import load

    with readable(path, "is not a model file"):
        parts = _read_parts(path)
    with readable(path):
        manifest = json.loads(parts["manifest.json"])
        if manifest.get("format") != _FORMAT:
            raise ValueError("it is not a model of adanet_py")
        if int(manifest["version"]) > VERSION:
            raise RunError(
                f"{path} was written by a newer version (format {manifest['version']}, this "
                f"program reads up to {VERSION}). Update adanet_py."
            )
        for name in _PARTS[1:]:
            if hashlib.sha256(parts[name]).hexdigest() != manifest["sha256"][name]:
                raise ValueError(f"the checksum of {name} does not fit")
        preprocessor = json.loads(parts["preprocessor.json"])
        return Content(manifest, preprocessor, load(parts["weights.safetensors"]))


@contextmanager
def readable(path: Path, what: str = "cannot be read as a model") -> Iterator[None]:
    """What fails within, but for a RunError, is a RunError: the file is damaged.

    Damaged content fails in many ways, and all mean the same to a user.
    """
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        raise RunError(f"{path} {what}: {error}. Use an intact copy.") from None


def _read_parts(path: Path) -> dict[str, bytes]:
    """The known parts and nothing else."""
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        # Stored as they are: a small file cannot unfold into a large one.
        stored = all(i.compress_type == zipfile.ZIP_STORED for i in infos)
        if sorted(i.filename for i in infos) != sorted(_PARTS) or not stored:
            raise zipfile.BadZipFile(f"expected the parts {', '.join(_PARTS)}")
        return {name: archive.read(name) for name in _PARTS}

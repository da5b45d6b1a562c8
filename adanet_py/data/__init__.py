"""Data: reading tables, preprocessing, splits, and the sources that training reads from.

Importing this package loads numpy only; pandas comes with `table` and `preprocess`.
"""

from __future__ import annotations

from adanet_py.data.source import ArraySource

SOURCES = {"arrays": ArraySource}

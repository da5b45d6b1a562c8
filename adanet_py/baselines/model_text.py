"""Models of scikit-learn as text: "SVC(C=3)", "make_pipeline(StandardScaler(), Ridge(10.0))".

So they stand on a command line and in a run's configuration. A text names classes of scikit-learn
and gives them plain values or other such objects; reading it makes them, and nothing else.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from adanet_py.errors import ConfigError

# Modules of scikit-learn with models, and with what these are made of.
MODULES = (
    "linear_model", "svm", "neighbors", "ensemble", "pipeline", "preprocessing", "tree",
    "neural_network", "naive_bayes", "discriminant_analysis", "gaussian_process",
    "gaussian_process.kernels", "calibration", "compose", "decomposition", "feature_selection",
    "kernel_approximation", "kernel_ridge", "isotonic", "multiclass", "multioutput",
    "cross_decomposition", "random_projection", "model_selection", "impute", "cluster", "mixture",
    "manifold", "covariance", "dummy", "semi_supervised",
)  # fmt: skip
_FUNCTIONS = ("make_pipeline", "make_union")
_PREFIX = "sklearn."
_EXAMPLE = "a model of scikit-learn such as SVC(C=3)"
_NUMBERS = {"inf": float("inf"), "nan": float("nan")}


def is_model(text: str) -> bool:
    """Whether a text is meant for a model: it has arguments, a capital letter or a module."""
    name = text.strip().partition("(")[0]
    return "(" in text or name[:1].isupper() or name.startswith(_PREFIX)


def check_text(text: str) -> str:
    """The text, if it can be read as one of a model; ConfigError else. Nothing is imported."""
    _check(_parse(text), text)
    return text.strip()


def name_models(texts: Iterable[str]) -> dict[str, str]:
    """Texts by the name each is shown with: its class's, of a pipeline that of the last step.

    One that was there before gets a number.
    """
    found: dict[str, str] = {}
    for text in texts:
        name = unique = _name(_parse(text))
        while unique in found:
            unique = f"{name}_{sum(n == name or n.startswith(f'{name}_') for n in found) + 1}"
        found[unique] = text
    return found


def read_model(text: str) -> Any:
    """The unfitted model that a text describes.

    Raises ConfigError for what is no model of scikit-learn or cannot be made.
    """
    node = _parse(text)
    _check(node, text)
    try:
        made = _value(node, text)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"The member {text!r} cannot be made: {error}.") from None
    made = made() if isinstance(made, type) else made
    for name, value in made.get_params(deep=True).items() if hasattr(made, "get_params") else ():
        if name.rpartition("__")[2] == "memory" and value is not None:
            raise ConfigError(f"The member {text!r}: expected no {name}=, leave it out.")
    return made


def write_model(model: Any) -> str:
    """The text of an unfitted model, from which `read_model` makes the same.

    Raises ConfigError where a parameter is neither a plain value nor an object of scikit-learn.
    """
    if not hasattr(model, "fit") or not hasattr(model, "get_params"):
        raise ConfigError(f"members: expected {_EXAMPLE}, found {model!r:.80}.")
    return _text(model, type(model).__name__)


def write_members(given: Any) -> Any:
    """The option `members` as a search reads it: models of scikit-learn are their texts."""
    if isinstance(given, str):
        return given
    several = given if isinstance(given, list | tuple) else [given]
    return [one if isinstance(one, str) else write_model(one) for one in several]


def _parse(text: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        raise ConfigError(
            f"--members: expected {_EXAMPLE}, found {text!r}, which cannot be read."
        ) from None


def _check(node: ast.expr, text: str) -> None:
    """Raise ConfigError unless the text has classes, calls and plain values only."""
    if isinstance(node, ast.Call):
        _dotted(node.func, text)
        if any(isinstance(a, ast.Starred) for a in node.args) or any(
            k.arg is None for k in node.keywords
        ):
            raise ConfigError(f"--members: expected {_EXAMPLE}, found * in {text!r}.")
        for part in (*node.args, *(k.value for k in node.keywords)):
            _check(part, text)
    elif isinstance(node, ast.List | ast.Tuple):
        for part in node.elts:
            _check(part, text)
    elif isinstance(node, ast.Dict):
        if None in node.keys:
            raise ConfigError(f"--members: expected {_EXAMPLE}, found ** in {text!r}.")
        for part in (*(k for k in node.keys if k is not None), *node.values):
            _check(part, text)
    elif isinstance(node, ast.Name | ast.Attribute):
        _dotted(node, text)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        _check(node.operand, text)
    elif not isinstance(node, ast.Constant):
        raise ConfigError(
            f"--members: expected {_EXAMPLE}, whose arguments are plain values or other such "
            f"objects, found {ast.unparse(node)!r} in {text!r}."
        )


def _dotted(node: ast.expr, text: str) -> str:
    """The name of a class, with its module if that is given."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, text)}.{node.attr}"
    raise ConfigError(
        f"--members: expected the name of a class of scikit-learn, found {ast.unparse(node)!r} in "
        f"{text!r}."
    )


def _name(node: ast.expr) -> str:
    called = node.func if isinstance(node, ast.Call) else node
    name = _dotted(called, "").rpartition(".")[2]
    if not isinstance(node, ast.Call):
        return name
    last: ast.expr | None = node.args[-1] if name == "make_pipeline" and node.args else None
    if name == "Pipeline":
        steps = [*node.args[:1], *(k.value for k in node.keywords if k.arg == "steps")]
        if steps and isinstance(steps[0], ast.List | ast.Tuple) and steps[0].elts:
            pair = steps[0].elts[-1]
            last = pair.elts[-1] if isinstance(pair, ast.Tuple | ast.List) and pair.elts else None
    return name if not isinstance(last, ast.Call | ast.Name | ast.Attribute) else _name(last)


def _value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Call):
        made = _find(_dotted(node.func, text), text)
        keywords = {str(k.arg): _value(k.value, text) for k in node.keywords}
        return made(*(_value(a, text) for a in node.args), **keywords)
    if isinstance(node, ast.List | ast.Tuple):
        values = [_value(part, text) for part in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    if isinstance(node, ast.Dict):
        keys = [_value(k, text) for k in node.keys if k is not None]
        return dict(zip(keys, (_value(v, text) for v in node.values), strict=True))
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand, text)
        return -value if isinstance(node.op, ast.USub) else +value
    if isinstance(node, ast.Constant):
        return node.value
    name = _dotted(node, text)
    return _NUMBERS[name] if name in _NUMBERS else _find(name, text)


def _find(name: str, text: str) -> Any:
    """The class of that name, or the function that puts several together."""
    module, _, short = name.removeprefix(_PREFIX).rpartition(".")
    if module and module not in MODULES:
        raise ConfigError(
            f"--members: expected {_EXAMPLE}, found {name} in {text!r}, which is in none of "
            f"scikit-learn's modules {', '.join(MODULES)}."
        )
    for one in [module] if module else MODULES:
        found = _classes(one).get(short)
        if found is not None:
            return found
    known = {n for one in ([module] if module else MODULES) for n in _classes(one)}
    near = get_close_matches(short, known, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ConfigError(
        f"--members: expected {_EXAMPLE}, found {name} in {text!r}, which it does not have.{hint}"
    )


@lru_cache(maxsize=len(MODULES))
def _classes(module: str) -> dict[str, Any]:
    """What of a module of scikit-learn a text may name."""
    from sklearn.base import BaseEstimator
    from sklearn.gaussian_process.kernels import Kernel

    if module == "impute":
        importlib.import_module("sklearn.experimental.enable_iterative_imputer")
    found = vars(importlib.import_module(_PREFIX + module))
    return {
        name: value
        for name, value in found.items()
        if name in _FUNCTIONS
        or (
            inspect.isclass(value)
            and issubclass(value, BaseEstimator | Kernel)
            and value.__module__.startswith(_PREFIX)
        )
    }


def _text(value: Any, where: str) -> str:
    import numpy as np

    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return repr(value)
    if isinstance(value, float):
        return repr(value)  # inf and nan are read as names
    if type(value) in (list, tuple):
        parts = ", ".join(_text(v, where) for v in value)
        if type(value) is list:
            return f"[{parts}]"
        return f"({parts},)" if len(value) == 1 else f"({parts})"
    if type(value) is dict:
        pairs = (f"{_text(k, where)}: {_text(v, where)}" for k, v in value.items())
        return f"{{{', '.join(pairs)}}}"
    kind = type(value)
    if hasattr(value, "get_params") and any(
        _classes(m).get(kind.__name__) is kind for m in MODULES
    ):
        defaults = inspect.signature(kind).parameters
        given = []
        for name, one in value.get_params(deep=False).items():
            text = _text(one, f"{kind.__name__}.{name}")
            default = defaults[name].default if name in defaults else inspect.Parameter.empty
            if default is inspect.Parameter.empty or _default(default) != text:
                given.append(f"{name}={text}")
        return f"{kind.__name__}({', '.join(given)})"
    raise ConfigError(
        f"members: expected in {where} a number, a text, a list of such or an object of "
        f"scikit-learn itself, found {value!r:.80} ({kind.__module__}.{kind.__qualname__}): a "
        "model file holds no code. Leave the member out."
    )


def _default(value: Any) -> str | None:
    try:
        return _text(value, "")
    except ConfigError:
        return None

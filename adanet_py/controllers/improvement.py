"""Expected improvement, as a logarithm."""

from __future__ import annotations

import math

import numpy as np

from adanet_py.controllers.columns import Floats

_ROOT_HALF, _ROOT_HALF_PI = math.sqrt(0.5), math.sqrt(math.pi / 2.0)
_LOG_ROOT_2PI = 0.5 * math.log(2.0 * math.pi)
_FAR, _BEYOND = -1e3, 37.0  # z below and above which a limit is as good


def log_expected_improvement(mean: Floats, variance: Floats, best: float) -> Floats:
    """log E[max(f - best, 0)] of normal f with these means and variances [m].

    With z = (mean - best) / deviation it is log(deviation) + log(phi(z) + z Phi(z)), computed so
    that it is exact where the improvement is far below the least number (Ament et al. 2023,
    "Unexpected improvements to expected improvement", arXiv 2310.20708, section 4.1).
    """
    from scipy.special import erfcx

    deviation = np.sqrt(variance)
    z = (mean - best) / deviation
    # phi + z Phi = phi (1 + z Phi / phi), of which the ratio is sqrt(pi/2) erfcx(-z / sqrt2)
    inner = np.clip(z, _FAR, _BEYOND)
    out: Floats = np.log1p(inner * (_ROOT_HALF_PI * erfcx(inner * -_ROOT_HALF)))
    inner *= inner
    inner *= 0.5
    out -= inner
    out -= _LOG_ROOT_2PI
    if (far := z < _FAR).any():
        out[far] = -0.5 * z[far] ** 2 - _LOG_ROOT_2PI - 2.0 * np.log(-z[far])
    if (beyond := z > _BEYOND).any():
        out[beyond] = np.log(z[beyond])
    out += np.log(deviation)
    return out

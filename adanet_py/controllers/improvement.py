"""Expected improvement, as a logarithm."""

from __future__ import annotations

import numpy as np

from adanet_py.controllers.columns import Floats

_NEAR, _FAR = -1.0, -1e3  # z at which one way to compute it ends and the next begins


def log_expected_improvement(mean: Floats, variance: Floats, best: float) -> Floats:
    """log E[max(f - best, 0)] of normal f with these means and variances [m].

    With z = (mean - best) / deviation it is log(deviation) + log(phi(z) + z Phi(z)), computed so
    that it is exact where the improvement is far below the least number (Ament et al. 2023,
    "Unexpected improvements to expected improvement", arXiv 2310.20708, section 4.1).
    """
    from scipy.special import erfcx, ndtr

    deviation = np.sqrt(variance)
    z = (mean - best) / deviation
    log_phi = -0.5 * z * z - 0.5 * np.log(2.0 * np.pi)
    near = np.maximum(z, _NEAR)
    direct = np.log(np.exp(-0.5 * near * near) / np.sqrt(2.0 * np.pi) + near * ndtr(near))
    # phi + z Phi = phi (1 - |z| Phi / phi), of which the ratio is sqrt(pi/2) erfcx(|z| / sqrt2)
    a = -np.clip(z, _FAR, _NEAR)
    middle = log_phi + np.log1p(-a * np.sqrt(np.pi / 2.0) * erfcx(a / np.sqrt(2.0)))
    far = log_phi - 2.0 * np.log(-np.minimum(z, _FAR))  # its limit
    out: Floats = np.where(z > _NEAR, direct, np.where(z > _FAR, middle, far))
    return out + np.log(deviation)

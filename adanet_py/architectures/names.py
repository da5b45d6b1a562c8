"""Names of activations, norms and initialisations with their summaries; no torch at import."""

from __future__ import annotations

ACTIVATIONS: dict[str, str] = {
    "relu": "max(0, x)",
    "leaky_relu": "max(0.01 x, x)",
    "gelu": "x Phi(x) (Hendrycks and Gimpel 2016)",
    "silu": "x sigmoid(x), also called swish",
    "mish": "x tanh(softplus(x)) (Misra 2019)",
    "elu": "x or exp(x) - 1 (Clevert et al. 2016)",
    "selu": "scaled ELU (Klambauer et al. 2017)",
    "tanh": "hyperbolic tangent",
    "sigmoid": "logistic function",
    "glu": "a sigmoid(b), [a, b] = x (Dauphin et al. 2016)",
    "geglu": "a gelu(b), [a, b] = x (Shazeer 2020)",
    "reglu": "a max(0, b), [a, b] = x (Shazeer 2020)",
    "swiglu": "a silu(b), [a, b] = x (Shazeer 2020)",
}
# These halve their input, so the linear layer (and norm) before them has twice the units.
GATED = frozenset({"glu", "geglu", "reglu", "swiglu"})

NORMS: dict[str, str] = {
    "none": "no normalisation",
    "batch": "batch normalisation, running statistics per member (Ioffe and Szegedy 2015)",
    "layer": "layer normalisation (Ba et al. 2016)",
    "rms": "root mean square normalisation (Zhang and Sennrich 2019)",
    "group": "layer normalisation of up to 8 groups of 4 units or more (Wu and He 2018)",
}

# Parameters of a norm for each of its units.
NORM_PARAMETERS = {"none": 0, "batch": 2, "layer": 2, "rms": 1, "group": 2}

# Of a linear map with `in` inputs and `out` outputs; all but the default start biases at zero.
INITS: dict[str, str] = {
    "default": "weights and biases U(-b, b), b = 1 / sqrt(in), as torch.nn.Linear",
    "he_normal": "N(0, 2 / in) (He et al. 2015)",
    "he_uniform": "U(-b, b), b = sqrt(6 / in) (He et al. 2015)",
    "glorot_normal": "N(0, 2 / (in + out)) (Glorot and Bengio 2010)",
    "glorot_uniform": "U(-b, b), b = sqrt(6 / (in + out)) (Glorot and Bengio 2010)",
    "lecun_normal": "N(0, 1 / in) (LeCun et al. 1998)",
    "lecun_uniform": "U(-b, b), b = sqrt(3 / in) (LeCun et al. 1998)",
    "orthogonal": "orthonormal rows or columns, whichever are fewer (Saxe et al. 2014)",
}


GROUPS, GROUP_UNITS = 8, 4  # groups of a group norm at most, units of a group at least


def norm_groups(units: int) -> int:
    """Groups of the group norm: the largest divisor of its units within the two bounds, else 1."""
    divisors = (g for g in range(2, GROUPS + 1) if units % g == 0 and units >= g * GROUP_UNITS)
    return max(divisors, default=1)


def units_before(activation: str, width: int) -> int:
    """Units of the linear layer before an activation that gives `width`."""
    return 2 * width if activation in GATED else width

"""Names of activations and norms with their one-line summaries; no torch at import."""

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
}

NORMS: dict[str, str] = {
    "none": "no normalisation",
    "batch": "batch normalisation, running statistics per member (Ioffe and Szegedy 2015)",
    "layer": "layer normalisation (Ba et al. 2016)",
    "rms": "root mean square normalisation (Zhang and Sennrich 2019)",
}

"""Architectures: one file each, one line in `ARCHITECTURES`. No torch at import."""

from adanet_py.architectures import mlp, resnet, tabm
from adanet_py.architectures.architecture import Architecture

ARCHITECTURES: dict[str, Architecture] = {
    "mlp": mlp.ARCHITECTURE,
    "resnet": resnet.ARCHITECTURE,
    "tabm": tabm.ARCHITECTURE,
}

__all__ = ["ARCHITECTURES", "Architecture"]

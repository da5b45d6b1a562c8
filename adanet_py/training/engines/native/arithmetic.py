"""Functions of one number that the compiler can vectorise, in float32; libm's in float64.

Polynomials of Cephes (Moshier 1989). Errors are a few units in the last place of float32.
"""

# ruff: noqa: D103 - the names say what they are

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

_f = np.float32
_LOG2E, _LN2_HIGH, _LN2_LOW = _f(1.44269504088896341), _f(0.693359375), _f(-2.12194440e-4)
_E0, _E1, _E2 = _f(1.9875691500e-4), _f(1.3981999507e-3), _f(8.3334519073e-3)
_E3, _E4, _E5 = _f(4.1665795894e-2), _f(1.6666665459e-1), _f(5.0000001201e-1)
_HALF, _ONE, _TWO = _f(0.5), _f(1.0), _f(2.0)
_LOW, _HIGH = _f(-87.3), _f(88.3)
# The normal distribution: 7.1.26 is good to 1.5e-7, about a unit of float32 near 1.
_P, _A1, _A2 = _f(0.3275911 * 0.70710678118654752440), _f(0.254829592), _f(-0.284496736)
_A3, _A4, _A5 = _f(1.421413741), _f(-1.453152027), _f(1.061405429)
_DENSITY = _f(0.39894228040143267794)
# sine and cosine: pi / 2 in three parts, so that the remainder is exact up to about 8,192.
_TWO_OVER_PI = _f(0.63661977236)
_PI_A, _PI_B, _PI_C = _f(1.5703125), _f(4.83751296997e-4), _f(7.54978995489e-8)
_S0, _S1, _S2 = _f(-1.9515295891e-4), _f(8.3321608736e-3), _f(-1.6666654611e-1)
_C0, _C1, _C2 = _f(2.443315711809948e-5), _f(-1.388731625493765e-3), _f(4.166664568298827e-2)


@register_jitable
def _exp32(x):
    # A NaN must stay one: both comparisons are false for it.
    x = _HIGH if x > _HIGH else x
    x = _LOW if x < _LOW else x
    n = np.floor(x * _LOG2E + _HALF)
    r = x - n * _LN2_HIGH
    r = r - n * _LN2_LOW
    p = ((((_E0 * r + _E1) * r + _E2) * r + _E3) * r + _E4) * r + _E5
    y = p * r * r + r + _ONE
    scale = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return y * scale


@register_jitable
def _normal32(x):
    # erf (Abramowitz and Stegun 7.1.26) with the same exponential as the density.
    e = _exp32(-_HALF * x * x)
    t = _ONE / (_ONE + _P * abs(x))
    p = ((((_A5 * t + _A4) * t + _A3) * t + _A2) * t + _A1) * t
    tail = _HALF * p * e
    return (tail if x < 0 else _ONE - tail), e * _DENSITY


@register_jitable
def _normal64(x):
    cdf = 0.5 * (1.0 + math.erf(x * 0.70710678118654752440))
    return cdf, 0.39894228040143267794 * math.exp(-0.5 * x * x)


@register_jitable
def _sine32(x, quarter):
    """sin(x + quarter pi / 2)."""
    n = np.floor(x * _TWO_OVER_PI + _HALF)
    r = x - n * _PI_A
    r = r - n * _PI_B
    r = r - n * _PI_C
    q = (np.int32(n) + np.int32(quarter)) & np.int32(3)
    s = r * r
    sine = ((_S0 * s + _S1) * s + _S2) * s * r + r
    cosine = ((_C0 * s + _C1) * s + _C2) * s * s - _HALF * s + _ONE
    y = cosine if q & np.int32(1) else sine
    return -y if q & np.int32(2) else y


def exp(x: Any) -> Any:
    raise NotImplementedError


def tanh(x: Any) -> Any:
    raise NotImplementedError


def normal(x: Any) -> Any:
    """Distribution function and density of the standard normal."""
    raise NotImplementedError


def sine(x: Any) -> Any:
    raise NotImplementedError


def cosine(x: Any) -> Any:
    raise NotImplementedError


@overload(exp)
def _exp(x):
    if x is types.float32:
        return lambda x: _exp32(x)
    return lambda x: math.exp(x)


@overload(tanh)
def _tanh(x):
    if x is types.float32:
        return lambda x: _ONE - _TWO / (_exp32(_TWO * x) + _ONE)
    return lambda x: math.tanh(x)


@overload(normal)
def _normal(x):
    if x is types.float32:
        return lambda x: _normal32(x)
    return lambda x: _normal64(x)


@overload(sine)
def _sine(x):
    if x is types.float32:
        return lambda x: _sine32(x, 0)
    return lambda x: math.sin(x)


@overload(cosine)
def _cosine(x):
    if x is types.float32:
        return lambda x: _sine32(x, 1)
    return lambda x: math.cos(x)


@register_jitable
def sigmoid(x):
    one = type(x)(1)
    return one / (one + exp(-x))

"""Causal convolution of long channels, in memory that does not grow with their number."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax.lax import Precision
from jaxtyping import Array, Float, Shaped

Given = Shaped[Array | np.ndarray, "..."]
"""An array whose shape and type are checked with a message of its own."""

ENGINES = ("auto", "fft", "direct")

DIRECT = 128
"""Longest sequence that is multiplied by its Toeplitz matrix rather than transformed."""

BYTES = 1 << 23
"""Size of one transform held by a call, roughly. On two CPU cores 16 channels of 16,384 at a time (this many bytes)
take half the time of all 64 at once."""


def causal_convolution(k: Given, u: Given, *, engine: str = "auto") -> Float[Array, "h t"]:
    """`y_i[t] = sum_{0 <= j <= t} k_i[j] u_i[t - j]`, channel by channel.

    **Arguments:**

    - `k` `[h, l]`: a kernel a channel, zero beyond its end; what of it lies beyond `t` is not read.
    - `u` `[h, t]`: the channels.
    - `engine`: `"fft"` (as many channels at a time as some megabytes hold: memory beyond the arguments and the result
      does not grow with `h`), `"direct"` (a product with the Toeplitz matrix of the kernel, `t^2` a channel), or
      `"auto"`: direct up to 128 steps.

    **Returns:** `[h, t]`. The adjoint is written by hand: two correlations, for which nothing is kept but `k` and `u`;
    reverse mode only.

    **Raises:** `ValueError` for other shapes or types, and other engines.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {ENGINES}: got {engine!r}.")
    for name, x in (("k", k), ("u", u)):
        if not jnp.issubdtype(x.dtype, jnp.floating) or x.ndim != 2 or 0 in x.shape:
            raise ValueError(f"{name} must be real, [channel, time]: got {x.dtype} of shape {list(x.shape)}.")
    if len(k) != len(u):
        raise ValueError(f"k must have a kernel for each of the {len(u)} channels of u: got {len(k)}.")
    kernels, signals, t = jnp.asarray(k)[:, : u.shape[1]], jnp.asarray(u), u.shape[1]
    if engine == "direct" or (engine == "auto" and t <= DIRECT):
        return jnp.einsum("hij,hj->hi", toeplitz(kernels, t), signals, precision=Precision.HIGHEST)
    return _transformed(kernels, signals)


def toeplitz(k: Float[Array, "h l"], t: int) -> Float[Array, "h {t} {t}"]:
    """The matrices that convolve: entry `[i, j]` is `k[i - j]`, zero above the diagonal and beyond the kernel.

    By repeating one line and reading it again in shorter ones, so that its derivative is a sum, not a scatter.
    """
    h, l = k.shape
    line = jnp.pad(k, ((0, 0), (0, 2 * t - l)))
    many = jnp.tile(line, t)[:, : t * (2 * t - 1)].reshape(h, t, 2 * t - 1)  # entry [j, i] is line[i - j mod 2 t]
    return many[:, :, :t].swapaxes(1, 2)


def _groups(h: int, t: int, itemsize: int) -> int:
    """Channels at a time: a divisor of `h`."""
    most = max(BYTES // (2 * t * itemsize), 1)
    return next(g for g in range(min(most, h), 0, -1) if h % g == 0)


def _in_groups(f, *given) -> tuple[Array, ...]:
    """`f` of some channels at a time; all arrays `[h, t]`."""
    h, t = given[-1].shape
    size = _groups(h, t, given[-1].dtype.itemsize)
    if size == h:
        return f(*given)
    parts = tuple(x.reshape(h // size, size, -1) for x in given)
    return tuple(y.reshape(h, -1) for y in jax.lax.map(lambda part: f(*part), parts))


def _length(t: int) -> int:
    """Of the transform: at least `2 t - 1`, of small factors."""
    return int(scipy.fft.next_fast_len(2 * t - 1, real=True))  # pyright: ignore[reportArgumentType]


@jax.custom_vjp
def _transformed(k: Array, u: Array) -> Array:
    t, n = u.shape[1], _length(u.shape[1])

    def some(k, u):
        return (jnp.fft.irfft(jnp.fft.rfft(k, n) * jnp.fft.rfft(u, n), n)[:, :t],)

    return _in_groups(some, k, u)[0]


def _transformed_fwd(k: Array, u: Array):
    return _transformed(k, u), (k, u)


def _transformed_bwd(kept, y_bar):
    y_bar = jnp.asarray(y_bar)  # NumPy, of a gradient that is not traced
    (k, u), n = kept, _length(kept[1].shape[1])

    def some(k, u, y_bar):
        seen = jnp.fft.rfft(y_bar, n)
        of_k = jnp.fft.irfft(seen * jnp.conj(jnp.fft.rfft(u, n)), n)[:, : k.shape[1]]
        of_u = jnp.fft.irfft(seen * jnp.conj(jnp.fft.rfft(k, n)), n)[:, : u.shape[1]]
        return of_k, of_u

    return _in_groups(some, k, u, y_bar)


_transformed.defvjp(_transformed_fwd, _transformed_bwd)

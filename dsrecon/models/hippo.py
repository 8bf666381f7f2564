"""The HiPPO systems, the state of which remembers a past; forms in which `A` is cheap; the LegS memory as a cell.

Matrices are made on the host in NumPy float64, once, whatever JAX is set to.
"""

from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Complex, Float

from dsrecon.models._init import at_least_one

Measure = Literal["legs", "legt", "lagt", "fourier"]
"""Which past a HiPPO system remembers, and in which functions."""

MEASURES: tuple[str, ...] = get_args(Measure)


class System(NamedTuple):
    """`x' = A x + B u` with one input: `A` `[n, n]`, `B` `[n]`."""

    A: Float[np.ndarray, "n n"]
    B: Float[np.ndarray, "n"]


class NPLR(NamedTuple):
    """Normal plus low rank: `A = V (L - P P*) V*`, of `n = 2k` modes those `k` with `Im L >= 0`.

    - `eigenvalues`: `L`, `[k]`, by rising imaginary part.
    - `P`: `[k, r]`, in the coordinates of `V`; its first column is real and not negative, which fixes the phases.
    - `B`: `V* B`, `[k]`.
    - `V`: `[n, k]`.

    With the conjugates beside them, `W = [V, conj V]` (unitary) and `Q = [P; conj P]`, the system is
    `A = W (diag(L, conj L) - Q Q*) W*`, `B = W [B; conj B]`: real.
    """

    eigenvalues: Complex[np.ndarray, "k"]
    P: Complex[np.ndarray, "k r"]
    B: Complex[np.ndarray, "k"]
    V: Complex[np.ndarray, "n k"]


class TridiagonalForm(NamedTuple):
    """`A = diag(P) (diag(D) + T^-1) diag(Q)`: `P`, `D`, `Q`, `T_diag` `[n]`; `T_sub`, `T_super` `[n - 1]`."""

    P: Float[np.ndarray, "n"]
    D: Float[np.ndarray, "n"]
    T_sub: Float[np.ndarray, "n-1"]
    T_diag: Float[np.ndarray, "n"]
    T_super: Float[np.ndarray, "n-1"]
    Q: Float[np.ndarray, "n"]


def hippo_system(measure: Measure, state_size: int) -> System:
    """`x' = A x + B u`, the state of which holds the past of `u` in orthonormal functions.

    With `p_n(x) = sqrt(2n + 1) P_n(2x - 1)`, the Legendre polynomials of [0, 1], `x_n(t) = int g_n(s) u(t - s) ds` and
    `u(t - s) ~ sum_n x_n(t) f_n(s)`:

    - `"legs"`: `f_n = p_n(e^-s)`, `g_n = e^-s f_n`, the past as it recedes. `A_nk = -sqrt((2n+1)(2k+1))` for `n > k`,
      `-(n + 1)` for `n = k`, 0 above; `B_n = sqrt(2n+1)`. The time-scaled `c' = (A c + B u) / t` instead holds the
      whole past evenly: `LegSMemory`.
    - `"legt"`: `f_n = g_n = p_n(1 - s)` on the last unit of time. `A_nk = -sqrt((2n+1)(2k+1))`, times `(-1)^(n-k)`
      for `k > n`; `B_n = sqrt(2n+1)`.
    - `"lagt"`: `f_n = g_n = e^(-s/2) L_n(s)`, the Laguerre functions (the tilted form, of which `A + A'` has rank one).
      `A_nk = -1` for `n > k`, `-1/2` for `n = k`, 0 above; `B_n = 1`.
    - `"fourier"`: `f_n = g_n` on the last unit of time: `f_0 = 1`, `f_2k = sqrt(2) cos 2 pi k s`,
      `f_2k+1 = sqrt(2) sin 2 pi k s`. `A = R - 2 f(0) f(0)'`, `R` turning each pair by `2 pi k`; `B = 2 f(0)`. State 1
      is the sine of frequency 0: it stays where it is, and `A` is singular by it.

    The first and the third are exact; the two windows are closed by what their own functions say of `u(t - 1)`.

    **Arguments:** `measure`; `state_size` n, for `"fourier"` even.

    **Returns:** `System(A, B)`, NumPy float64.

    **Raises:** `ValueError` for another measure, a size below 1, and an odd one for `"fourier"`.

    References: Gu et al. 2020, *HiPPO: recurrent memory with optimal polynomial projections*, NeurIPS; Gu et al. 2023,
    *How to train your HiPPO: state space models with generalized orthogonal basis projections*, ICLR.
    """
    _check(measure, state_size)
    n = np.arange(state_size)
    root = np.sqrt(2.0 * n + 1)
    ahead = n[:, None] < n  # above the diagonal
    if measure == "legs":
        A = np.where(ahead, 0.0, -np.outer(root, root))
        np.fill_diagonal(A, -(n + 1.0))
        return System(A, root)
    if measure == "legt":
        return System(-np.outer(root, root) * np.where(ahead & ((n[:, None] - n) % 2 == 1), -1.0, 1.0), root)
    if measure == "lagt":
        return System(np.where(ahead, 0.0, -1.0) + 0.5 * np.eye(state_size), np.ones(state_size))
    f = _fourier_now(state_size)
    A = -2 * np.outer(f, f)
    cosines = n[::2]
    A[cosines + 1, cosines] = np.pi * cosines
    A[cosines, cosines + 1] = -np.pi * cosines
    return System(A, 2 * f)


def normal_plus_low_rank(measure: Measure, state_size: int) -> NPLR:
    """`A = N - P P*` of a HiPPO system, diagonal in the eigenvectors of the normal `N = -c I + skew`.

    `P` is of rank one (`"legs"`: `P_n = sqrt(n + 1/2)`, c = 1/2; `"lagt"`: `sqrt(1/2)`, c = 0; `"fourier"`:
    `sqrt(2) f(0)`, c = 0), for `"legt"` of rank two: `sqrt(2n+1)` at even and at odd n, c = 0. Less is not possible:
    `A + A' + 2 c I = -2 P P'` has that rank. It also shows that no system of these grows: `A + A' <= 0`.

    The eigenvectors are those of the Hermitian `-i skew`, which keeps them unitary at any size. The two zero modes of
    `"fourier"`, its constant and the state that stays, are given as a pair.

    **Arguments:** `measure`; `state_size` n, even, so that modes come in conjugate pairs.

    **Returns:** `NPLR(eigenvalues, P, B, V)`, NumPy complex128.

    **Raises:** `ValueError` for another measure, a size below 1, and an odd one.

    References: Gu, Goel & Ré 2022, *Efficiently modeling long sequences with structured state spaces*, ICLR, appendix
    C; Gu et al. 2023 (as `hippo_system`).
    """
    _check(measure, state_size, pairs=True)
    A, B = hippo_system(measure, state_size)
    n, half = np.arange(state_size), state_size // 2
    shift = 0.5 if measure == "legs" else 0.0
    if measure == "fourier":
        P = np.sqrt(2.0) * _fourier_now(state_size)[:, None]
        frequencies, V = 2 * np.pi * np.arange(half), np.zeros((state_size, half), complex)
        V[n[::2], n[:half]], V[n[1::2], n[:half]] = np.sqrt(0.5), -1j * np.sqrt(0.5)
    else:
        if measure == "legt":
            P = np.where(n[:, None] % 2 == [0, 1], np.sqrt(2.0 * n + 1)[:, None], 0.0)
        else:
            P = np.sqrt(n + 0.5 if measure == "legs" else np.full(state_size, 0.5))[:, None]
        normal = A + P @ P.T
        frequencies, V = np.linalg.eigh(-0.5j * (normal - normal.T))
        frequencies, V = frequencies[half:], V[:, half:]
        first = V.conj().T @ P[:, 0]
        V = V * (first / np.abs(first))
    V_star = V.conj().T
    return NPLR(-shift + 1j * frequencies, V_star @ P, V_star @ B, V)


def tridiagonal_form(measure: Measure, state_size: int) -> TridiagonalForm:
    """`A = diag(P) (diag(D) + T^-1) diag(Q)` with `T` tridiagonal: the class within which a layer may train `A`, since
    `(I - c A)^-1` then costs `O(n)`.

    With `r_n = sqrt(2n+1)`: `"legs"` has `P = -r`, `Q = r`, `D_n = -n / (2n + 1)`; `"lagt"` `P = -1`, `Q = 1`,
    `D = -1/2`; both `T` with 1 on the diagonal and -1 below it. `"legt"` has `P = -r`, `Q = r`, `D = 0`, and `T` with
    -1/2 below, 1/2 above, and 1/2 at both ends of a diagonal of zeros (1 where they meet).

    **Arguments:** `measure`: not `"fourier"`, which has no such form; `state_size` n.

    **Returns:** `TridiagonalForm(P, D, T_sub, T_diag, T_super, Q)`, NumPy float64.

    **Raises:** `ValueError` for another measure and a size below 1.

    Reference: Gu et al. 2021, *Combining recurrent, convolutional, and continuous-time models with linear state-space
    layers*, NeurIPS.
    """
    known = ("legs", "legt", "lagt")
    if measure not in known:
        raise ValueError(f"measure must be one of {known}, which have a tridiagonal form: got {measure!r}.")
    at_least_one(state_size=state_size)
    n, beside = np.arange(state_size), np.ones(state_size - 1)
    root = np.ones(state_size) if measure == "lagt" else np.sqrt(2.0 * n + 1)
    if measure == "legt":
        diagonal = 0.5 * ((n == 0).astype(float) + (n == state_size - 1))
        return TridiagonalForm(-root, np.zeros(state_size), -0.5 * beside, diagonal, 0.5 * beside, root)
    D = -n / (2.0 * n + 1) if measure == "legs" else np.full(state_size, -0.5)
    return TridiagonalForm(-root, D, -beside, np.ones(state_size), 0.0 * beside, root)


def _fourier_now(state_size: int) -> np.ndarray:
    """`f(0)` of the Fourier basis: 1, 0, then `sqrt(2)`, 0 a frequency."""
    f = np.zeros(state_size)
    f[::2] = np.sqrt(2.0)
    f[0] = 1.0
    return f


def _check(measure: str, state_size: int, pairs: bool = False) -> None:
    if measure not in MEASURES:
        raise ValueError(f"measure must be one of {MEASURES}: got {measure!r}.")
    at_least_one(state_size=state_size)
    if state_size % 2 and (pairs or measure == "fourier"):
        why = "modes come in conjugate pairs" if pairs else "'fourier' has a cosine and a sine a frequency"
        raise ValueError(f"state_size must be even, since {why}: got {state_size}.")

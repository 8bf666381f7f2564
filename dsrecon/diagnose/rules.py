"""From the evidence to findings: one rule a fault, in the order in which faults are named.

A cause is named before what follows from it, and nothing is looked for in a fit whose free run keeps to the data.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dsrecon.diagnose.evidence import Evidence
from dsrecon.diagnose.signs import (
    APART_H,
    AS_TRAINED,
    BROKEN,
    FALSE,
    FAR_H,
    FAR_STSP,
    FEW_REGIONS,
    LEFT,
    ORDERS,
    OUTSIDE,
    REPEATS,
    STEEP,
    STILL,
    STRUCTURED,
    UNLEARNED,
    UNLEARNED_SHARE,
    as_trained,
    astray,
    forcing_needed,
    left,
    repeats,
    rests,
    spectrum_apart,
    steepness,
    unlearned,
)


class Figure(NamedTuple):
    """A number and the threshold that it passed."""

    value: float
    threshold: float


class Finding(NamedTuple):
    """What is wrong: `name`; `text`, in words; `advice`: what to try; `figure`: the numbers that it rests on."""

    name: str
    text: str
    advice: str
    figure: dict[str, Figure]


Rule = Callable[[Evidence], Finding | None]


def findings_of(e: Evidence) -> tuple[Finding, ...]:
    """All findings, the root cause first; none where the free run keeps to the data and the law is learned."""
    if not (astray(e) or unlearned(e)):
        return ()
    found = tuple(finding for rule in RULES if (finding := rule(e)) is not None)
    return found or tuple(finding for rule in LAST if (finding := rule(e)) is not None)


def diverged(e: Evidence) -> Finding | None:
    """The run has left, or is not finite."""
    if not left(e):
        return None
    if e.nonfinite >= 0:
        text = f"The free run diverges: it is not finite from step {e.nonfinite} on."
        figure = {"nonfinite": Figure(float(e.nonfinite), -1.0), "outside": Figure(e.outside, OUTSIDE)}
    else:
        text = f"The free run leaves the data: {e.outside:.0%} of its points lie outside their range."
        figure = {"outside": Figure(e.outside, OUTSIDE)}
    advice = (
        "Take a bounded cell: `cell=lambda key: ClippedShallowPLRNN(...)`, the default, cannot leave for ever while "
        "its |A| < 1. Else more runs (`runs=16`), smaller steps (`learning_rate=(5e-3, 1e-4)`), or longer windows "
        f"(`length={2 * e.length}`), over which a departure is seen."
    )
    return Finding("diverged", text, advice, figure)


def alpha_small(e: Evidence) -> Finding | None:
    """Gradients grow over the windows, so that nothing could be learned."""
    own = e.window_forced if as_trained(e) else np.nan
    orders = own if e.false > FALSE else np.fmax(steepness(e), own)  # false neighbours part without being stretched
    grows = orders > ORDERS or e.gradient > STEEP
    if not (
        (grows or e.stopped > BROKEN) and not np.isnan(e.loss) and (e.loss > UNLEARNED_SHARE or e.gradient > STEEP)
    ):
        return None
    wanted = forcing_needed(e)
    shown = f"alpha = {e.alpha:.3g}" if np.isnan(e.interval) else f"a forcing every {e.interval:.0f} steps"
    if np.isnan(e.alpha) and np.isnan(e.interval):
        shown = "this forcing"
    went = f"the loss {'fell only' if e.loss < e.loss_first else 'rose'} from {e.loss_first:.2g} to {e.loss:.2g}"
    if grows:
        grown = f"gradients grow by {orders:.1f} orders of magnitude over a window of {e.length} steps"
    else:
        grown = f"{e.stopped:.0%} of the runs broke off, at a loss that is not finite or a run that was not solved"
    text = f"The forcing is too weak: with {shown}, {grown}, and {went}."
    shorter = max(5, int(e.length * ORDERS / max(orders, ORDERS) / 2))
    advice = (
        f"More forcing: `alpha={min(0.9, max(0.1, round(wanted, 2))):g}` (about 1 - 1/s = {wanted:.2g} keeps gradients "
        "as they are), or leave `alpha` out, so that the runs try several, or `adaptive=product_bound`; or shorter "
        f"windows, `length={shorter}`."
    )
    figure = {
        "orders": Figure(float(orders), ORDERS),
        "gradient_norm": Figure(e.gradient, STEEP),
        "loss": Figure(e.loss, UNLEARNED_SHARE),
        "stopped": Figure(e.stopped, BROKEN),
    }
    return Finding("alpha_small", text, advice, figure)


def embedding(e: Evidence) -> Finding | None:
    """States that differ look alike."""
    if not e.false > FALSE:
        return None
    text = (
        f"The coordinates do not tell where the system is: {e.false:.1%} of nearest neighbours are near in them only, "
        "and far apart soon after. The embedding is too small, or a variable is missing."
    )
    advice = (
        "One variable: a larger `dimension` (see `embedding_curves`), or another `lag`. Several: measure one more, "
        "give the state hidden units (`cell=lambda key: ClippedShallowPLRNN(m, ...)` with m above the number of "
        "variables), or fit one variable alone, which is then embedded."
    )
    return Finding("embedding", text, advice, {"false": Figure(e.false, FALSE)})


def regions(e: Evidence) -> Finding | None:
    """A stiff cell: one or two pieces, and errors that the state foretells."""
    if not (
        0 < e.regions <= FEW_REGIONS and (unlearned(e) or astray(e)) and as_trained(e) and e.structured > STRUCTURED
    ):
        return None
    text = (
        f"Too few regions: along the data the cell is in {e.regions} linear region{'s' * (e.regions > 1)} "
        f"({e.gates} gates), and {e.structured:.0%} of its residuals are foretold by where the state is. A map with so "
        "few pieces cannot bend as the data do."
    )
    advice = (
        f"More piecewise-linear units: `cell=lambda key: ALRNN(m, {max(2, 2 * e.gates)}, key=key)`; or leave `cell` "
        "out, for a clipped shallow PLRNN with 100 hyperplanes."
    )
    figure = {"regions": Figure(float(e.regions), float(FEW_REGIONS)), "structured": Figure(e.structured, STRUCTURED)}
    return Finding("regions", text, advice, figure)


def alpha_large(e: Evidence) -> Finding | None:
    """Pulled at every step, the model has not learned to run."""
    bound = (1 - e.alpha) * max(1.0, e.stretch)
    if not (bound < LEFT and as_trained(e) and astray(e)):
        return None
    text = (
        f"The forcing is too strong: with alpha = {e.alpha:.3g} a step leaves {bound:.2g} of a difference, so the "
        f"model follows the data (one-step error {e.error:.2g} of the variance) because it is pulled, and has never "
        "run by itself."
    )
    advice = (
        f"Less forcing: `alpha={max(0.05, round(2 * forcing_needed(e), 2)):g}`, or leave `alpha` out, so that the runs "
        "try several, or `adaptive=product_bound`."
    )
    figure = {"bound": Figure(bound, LEFT), "error": Figure(e.error, AS_TRAINED * e.loss)}
    return Finding("alpha_large", text, advice, figure)


def underfit(e: Evidence) -> Finding | None:
    """Training ended before the law was learned."""
    if not (unlearned(e) and as_trained(e)):
        return None
    text = (
        f"The law is not learned yet: {e.ahead} steps ahead the model errs by {e.error_ahead:.2g} of the variance, "
        f"nearest neighbours in the data by {e.analogue_ahead:.2g}. The loss was {e.loss:.2g} after "
        f"{e.updates} updates, whose model was kept."
    )
    advice = (
        f"Train longer: `steps={max(12_000, 4 * e.updates)}`. If the loss has long been flat, a larger cell (more "
        "hidden units), another `alpha`, or a larger `learning_rate`."
    )
    figure = {
        "error_ahead": Figure(e.error_ahead, max(UNLEARNED * e.analogue_ahead, UNLEARNED_SHARE)),
        "loss": Figure(e.loss, e.error / AS_TRAINED),
    }
    return Finding("underfit", text, advice, figure)


def point(e: Evidence) -> Finding | None:
    """The run has come to rest."""
    if left(e) or not rests(e):
        return None
    text = (
        f"The free run comes to rest in a fixed point: at its end it moves by {e.moves:.2g} of what the data do. The "
        "data do not rest."
    )
    advice = (
        "Longer windows (`length`), over which coming to rest costs; less forcing (`alpha`); more runs (`runs`): some "
        "keep moving, and validation finds them."
    )
    return Finding("point", text, advice, {"moves": Figure(e.moves, STILL)})


def cycle(e: Evidence) -> Finding | None:
    """The run is periodic or quasi-periodic, and the data are not."""
    if left(e) or rests(e) or not repeats(e):
        return None
    text = (
        "The free run repeats itself, and the data do not: a quarter of the stretch ahead its own past foretells it to "
        f"{max(e.far_run, 0):.2g} of a variance, the data's theirs to {e.far:.2g}."
    )
    advice = (
        "The law is nearly right, on the wrong side of a bifurcation: more updates (`steps`), longer windows "
        "(`length`), another `alpha`, more runs (`runs`)."
    )
    return Finding("cycle", text, advice, {"far_run": Figure(e.far_run, REPEATS * e.far)})


def spectrum(e: Evidence) -> Finding | None:
    """Right visits, wrong pace."""
    if left(e) or rests(e) or not spectrum_apart(e) or e.d_stsp > FAR_STSP:
        return None
    text = (
        f"The right places, at the wrong pace: d_stsp is {e.d_stsp:.1f} times its floor, d_h {e.d_h:.1f} times "
        f"({e.distance_h:.2g})."
    )
    advice = (
        "Longer windows (`length`) and less forcing (`alpha`), so that training sees the slow motion; "
        "check the `time_step`, and that no sample was dropped or series joined."
    )
    figure = {"d_h": Figure(e.d_h, FAR_H), "distance_h": Figure(e.distance_h, APART_H)}
    return Finding("spectrum", text, advice, figure | {"d_stsp": Figure(e.d_stsp, FAR_STSP)})


def attractor(e: Evidence) -> Finding | None:
    """Wrong visits."""
    if left(e) or rests(e) or not e.d_stsp > FAR_STSP:
        return None
    text = f"The free run visits other places than the data: d_stsp is {e.d_stsp:.1f} times its floor."
    advice = "More updates (`steps`), more runs (`runs`), another `alpha`, a larger cell; more data, if there are any."
    return Finding("attractor", text, advice, {"d_stsp": Figure(e.d_stsp, FAR_STSP)})


def unlike(e: Evidence) -> Finding | None:
    """The model errs more than its training lets expect (other data), or its training is not known."""
    if not unlearned(e):
        return None
    text = (
        f"The model does not foretell these data: {e.ahead} steps ahead it errs by {e.error_ahead:.2g} of the "
        f"variance, nearest neighbours in them by {e.analogue_ahead:.2g}."
    )
    figure = {"error_ahead": Figure(e.error_ahead, max(UNLEARNED * e.analogue_ahead, UNLEARNED_SHARE))}
    if np.isnan(e.loss):
        return Finding("underfit", text, "Train longer (`steps`), a larger cell, another `alpha`.", figure)
    text = f"{text} Its training had come to a loss of {e.loss:.2g}, and one step ahead it errs by {e.error:.2g}."
    advice = "They are other data than those of the fit, or the cell was changed since: fit these."
    return Finding("unlike", text, advice, figure | {"error": Figure(e.error, AS_TRAINED * e.loss)})


RULES: tuple[Rule, ...] = (
    diverged,
    alpha_large,
    embedding,
    alpha_small,
    regions,
    underfit,
    point,
    cycle,
    spectrum,
    attractor,
)
"""In the order of naming."""

LAST: tuple[Rule, ...] = (unlike,)
"""What is said where nothing else is."""

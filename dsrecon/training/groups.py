"""Optimisers by group: what makes the dynamics of sequence layers, and the rest."""

import jax
import optax
from jaxtyping import PyTree

from dsrecon.layer import AbstractSequenceLayer


def labels(params: PyTree) -> PyTree[str]:
    """A label a leaf: `"dynamics"` for what the sequence layers in a tree name so (`layer.dynamics`), else `"rest"`.

    **Arguments:** `params`: any tree that holds layers; their leaves may be anything, `None` and what is batched too.

    **Raises:** `ValueError` for a tree without a layer.
    """
    if not any(map(_layer, jax.tree.leaves(params, is_leaf=_layer))):
        raise ValueError(f"params must hold a sequence layer: got {type(params).__name__}, with none in it.")
    return jax.tree.map(lambda node: _labels(node) if _layer(node) else "rest", params, is_leaf=_layer)


def grouped(
    rest: optax.GradientTransformation, dynamics: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """One optimiser for the dynamics of the sequence layers of a model, another for all the rest.

    Poles and steps act through `exp(step * pole)` over a whole sequence: they want a rate of 1e-3 at most, and no
    weight decay, which would pull them to systems that nobody asked for.

        grouped(optax.adamw(4e-3, weight_decay=0.01), optax.adam(1e-3))

    Each keeps a state of its own; what looks at all parameters at once, such as a cut of the gradient's norm, is best
    chained before: `optax.chain(optax.clip_by_global_norm(1.0), grouped(...))`.

    **Raises:** `ValueError` when begun with parameters that hold no layer.

    Reference: Gu, Goel & Ré 2022, *Efficiently modeling long sequences with structured state spaces*, ICLR.
    """
    return optax.multi_transform({"rest": rest, "dynamics": dynamics}, labels)


def _layer(node: PyTree) -> bool:
    return isinstance(node, AbstractSequenceLayer)


def _labels(layer: AbstractSequenceLayer) -> PyTree[str]:
    """Labels of one layer; layers inside it have their own say."""

    def label(path, node):
        if path[0].name in layer.dynamics:
            return jax.tree.map(lambda _: "dynamics", node)
        return _labels(node) if _layer(node) else "rest"

    return jax.tree_util.tree_map_with_path(label, layer, is_leaf=lambda node: node is not layer and _layer(node))

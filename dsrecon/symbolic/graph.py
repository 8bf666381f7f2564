"""The transitions between regions as a graph."""

import networkx as nx
import numpy as np
import xarray as xr

from dsrecon.symbolic.document import plain
from dsrecon.symbolic.symbols import edges, run_lengths


def transition_graph(encoded: xr.Dataset) -> nx.DiGraph:
    """The regions of a fitted map as nodes, the transitions between them as edges.

    **Arguments:** `encoded`: what `encode` gave.

    **Returns:** directed graph whose nodes are the symbols.

    - Node: `symbol`, `visits`, `share` of all steps, `mean_<variable>` (in the units of the data), `bits`
      (the gates, "0101"), `dwell_mean` (mean of the dwell times seen whole, in units of time; absent when
      none was).
    - Edge: `count`; `probability`: of the transition at one time step, self-transitions counted;
      `exit_probability`: of the transition when the region is left (absent on self-transitions).
    - Graph: `time_step`, `time_unit`, `cell`, `regions_visited`, `steps`, `source` of `encoded`.

    A region seen at the last step only has no edge that leaves it. **Raises:** `ValueError` when `encoded`
    has no symbols.
    """
    dwell = run_lengths(encoded)["mean"]
    graph = nx.DiGraph()
    graph.graph.update({name: plain(value, str(name)) for name, value in encoded.attrs.items()})
    steps = encoded.sizes["time"]
    names = [str(name) for name in encoded["variable"].values]
    mean, bits, visits = (encoded[name].values for name in ("mean", "bits", "visits"))
    for region in encoded["region"].values.tolist():
        means = {f"mean_{name}": float(x) for name, x in zip(names, mean[region], strict=True)}
        text = "".join("1" if bit else "0" for bit in bits[region])
        seen = int(visits[region])
        graph.add_node(region, symbol=region, visits=seen, share=seen / steps, **means, bits=text)
        duration = float(dwell.sel(region=region))
        if np.isfinite(duration):
            graph.nodes[region]["dwell_mean"] = duration
    found = edges(encoded)
    size = encoded.sizes["region"]
    total = np.bincount(found.source, found.count, size)
    leaving = found.source != found.target
    exits = np.bincount(found.source[leaving], found.count[leaving], size)
    for i, j, count in zip(*(column.tolist() for column in found), strict=True):
        graph.add_edge(i, j, count=count, probability=count / float(total[i]))
        if i != j:
            graph[i][j]["exit_probability"] = count / float(exits[i])
    return graph

"""Symbols and graphs as files that other programs read: netCDF and GraphML."""

import os
from pathlib import Path

import networkx as nx
import xarray as xr

from dsrecon._files import replacing
from dsrecon.symbolic.symbols import run_lengths, transitions

_DWELL = {
    "dwell_mean": "mean",
    "dwell_median": "median",
    "dwell_count": "count",
    "dwell_censored": "censored",
}
_TABLES = ("transition_probability", "transition_count", "from", "to", *_DWELL)
_DENSE = 1000  # regions up to which the file holds the matrix: it grows with their square
_NEEDED = ("symbol", "bits", "visits", "mean", "A", "h", "observation")


def write_symbols(encoded: xr.Dataset, path: str | os.PathLike) -> Path:
    """Write what `encode` gave to one netCDF file, with the tables that follow from it, atomically.

    **Arguments:** `encoded`; `path`.

    The file holds the variables of `encode` and, for other programs, for each region `dwell_mean` and
    `dwell_median` in units of time, `dwell_count` and `dwell_censored` (`run_lengths`), and
    `transition_probability(from, to)` and `transition_count(from, to)` of one time step (`transitions`). The
    last two are left out above 1000 regions, where the graph (`write_graphml`) holds the same numbers as a
    list of edges.

    **Returns:** the path. **Raises:** `OSError` that names the path when it cannot be written; nothing is
    left then.
    """
    dwell = run_lengths(encoded)
    tables = encoded.assign({name: dwell[column] for name, column in _DWELL.items()})
    if encoded.sizes["region"] <= _DENSE:
        matrix = transitions(encoded)
        tables = tables.assign(
            transition_probability=matrix.drop_vars("count"), transition_count=matrix["count"].variable
        )
    packed = {
        name: {"zlib": True, "complevel": 4}
        for name, variable in tables.data_vars.items()
        if variable.ndim and variable.size
    }
    with replacing(path) as temporary:
        tables.to_netcdf(temporary, engine="h5netcdf", encoding=packed)
    return Path(path)


def read_symbols(path: str | os.PathLike) -> xr.Dataset:
    """Read what `write_symbols` wrote: the `Dataset` of `encode`, identical.

    The other tables of the file are functions of it: `transitions`, `run_lengths`.

    **Raises:** `ValueError` for a netCDF file of something else; `OSError` when it cannot be read.
    """
    with xr.open_dataset(path, engine="h5netcdf") as file:
        missing = [name for name in _NEEDED if name not in file]
        if missing:
            raise ValueError(f"{path} holds no symbols: it lacks {missing} (it has {sorted(map(str, file))}).")
        return file.drop_vars([name for name in _TABLES if name in file.variables]).load()


def write_graphml(graph: nx.DiGraph, path: str | os.PathLike) -> Path:
    """Write a transition graph to GraphML (Gephi, Cytoscape, igraph, yEd), atomically.

    **Returns:** the path. **Raises:** `OSError` that names the path when it cannot be written; nothing is
    left then.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        nx.write_graphml(graph, file)
    return Path(path)


def read_graphml(path: str | os.PathLike) -> nx.DiGraph:
    """Read what `write_graphml` wrote: the same nodes, edges and attributes.

    **Raises:** `FileNotFoundError`; `networkx.NetworkXError` or `xml.etree.ElementTree.ParseError` for
    another file.
    """
    with open(path, "rb") as file:
        graph = nx.read_graphml(file, node_type=int)
    for name in ("node_default", "edge_default"):  # what networkx adds while it reads
        graph.graph.pop(name, None)
    return graph

"""The real series that come with the package; none needs a network."""

import io
from pathlib import Path

import numpy as np
import scipy
import xarray as xr

from dsrecon.datasets.catalogue import CATALOGUE, Entry, checked
from dsrecon.series import Clock, labelled

FOLDER = Path(__file__).parents[1] / "_data"
"""Where the bundled files are, with their `NOTICE.md`."""

RATE = 360
"""Samples a second of the electrocardiogram."""


def ecg() -> xr.DataArray:
    """Five minutes of a human electrocardiogram with extra beats, in mV, 360 samples a second.

    `x = (adc - 1024) / 200` mV from the 11-bit converter values `adc`. Normal beats and, from second 16 on, premature
    ventricular contractions (extrasystoles). Large artefacts: the signal is lost from second 209 to 214, and disturbed
    about seconds 43 and 96 to 99. Mains hum at 60 Hz.

    Excerpt (19:35 to 24:35, as SciPy documents it) of record 208, lead MLII (modified limb lead II), of the MIT-BIH
    Arrhythmia Database on PhysioNet; licence: Open Data Commons Attribution License v1.0
    (https://opendatacommons.org/licenses/by/1-0/). Who uses it cites the two papers below.

    **Returns:** `DataArray(time, variable)` `[108000, 1]`, variable `MLII` in mV, times in seconds from 0.

    **Raises:** `ValueError` when the file is not the one that was bundled (SHA-256).

    Reference: Moody & Mark 2001, *The impact of the MIT-BIH Arrhythmia Database*, IEEE Eng. Med. Biol. 20(3), 45-50,
    doi:10.13026/C2F305; Goldberger et al. 2000, *PhysioBank, PhysioToolkit, and PhysioNet*, Circulation 101(23),
    e215-e220, doi:10.1161/01.CIR.101.23.e215.
    """
    entry = CATALOGUE["ecg"]
    with np.load(io.BytesIO(checked(FOLDER / entry.file, entry.sha256)), allow_pickle=False) as file:
        adc = file["ecg"].astype(np.float64)
    return _labelled("ecg", entry, (adc - 1024) / 200, 0.0)


def resting_ecg(rate: int = 72, seconds: tuple[float, float] = (214.0, 300.0)) -> xr.DataArray:
    """The electrocardiogram made ready to be reconstructed: its clean end, without drift and hum, sampled more slowly.

    In this order, over the whole record, so that a cut has no edge:

    1. the baseline, which wanders with the breath, is taken out: high-pass at 0.5 Hz, Butterworth of order 2, forwards
       and backwards, so that nothing is shifted;
    2. smoothing by a Gaussian of 10 ms (half of the amplitude is left at 19 Hz), which takes out the mains hum at 60 Hz
       and what the slower sampling would fold back;
    3. every `360 / rate`-th sample, of `seconds` alone: the default is what follows the last loss of signal.

    **Arguments:** `rate`: samples a second, a divisor of 360, at least 60; `seconds`: first and last of the stretch.

    **Returns:** `DataArray(time, variable)`, variable `MLII` in mV, times in seconds of the record; `preparation` in
    the attributes says the above.

    **Raises:** `ValueError` for a rate or a stretch out of range; as `ecg`.
    """
    if rate < 60 or RATE % rate:
        raise ValueError(f"rate must be a divisor of {RATE}, at least 60: got {rate}.")
    raw = ecg()
    first, last = (round(float(s) * RATE) for s in seconds)
    if not 0 <= first < last <= raw.sizes["time"]:
        raise ValueError(f"seconds must be (first, last) within 0 to {raw.sizes['time'] / RATE:g}: got {seconds}.")
    sections = scipy.signal.butter(2, 0.5, "high", fs=RATE, output="sos")
    flat = scipy.ndimage.gaussian_filter1d(scipy.signal.sosfiltfilt(sections, raw.values, axis=0), 0.01 * RATE, axis=0)
    out = raw.copy(data=flat)[first : last : RATE // rate]
    steps = f"high-pass .5 Hz, Gaussian of 10 ms, {rate} samples a second, {seconds[0]:g} to {seconds[1]:g} s"
    out.attrs |= {"time_step": 1 / rate, "preparation": steps}
    return out


def sunspots() -> xr.DataArray:
    """Monthly mean sunspot numbers, January 1749 to December 2008: 3,120 months, 23 cycles of about 11 years.

    `R = k (10 g + s)`: `g` groups, `s` spots, `k` the observer's scale (Wolf); version 1 of the international number,
    which is *not* on the scale of version 2 (2015). February 1824 was not observed: the file's value is interpolated
    between its neighbours. The six preliminary months of 2009 in the file are left out.

    Times are decimal years, the middle of each month, `1749 + (k + 1/2) / 12`: equidistant, which calendar months in
    days are not (they are up to 2 days off).

    **Returns:** `DataArray(time, variable)` `[3120, 1]`, variable `sunspot number` (no unit), times in years.

    **Raises:** `ValueError` when the file is not the one that was bundled (SHA-256).

    Reference: NOAA National Geophysical Data Center, file as distributed by statsmodels, which states that it is in
    the public domain; data: WDC-SILSO, Royal Observatory of Belgium, Brussels (Clette et al. 2007, *From the Wolf
    number to the International Sunspot Index*, Adv. Space Res. 40, 919-928).
    """
    entry = CATALOGUE["sunspots"]
    lines = checked(FOLDER / entry.file, entry.sha256).decode("ascii").splitlines()
    rows = [line.split() for line in lines if line[:4].isdigit()]
    years = np.array([row[1:] for row in rows if len(row) == 13], np.float64)  # 2009 ends in June
    return _labelled("sunspots", entry, years.ravel(), int(rows[0][0]) + 1 / 24)


def nino() -> xr.DataArray:
    """Sea surface temperature off Peru (region Nino 1+2), monthly means, January 1950 to December 2010, in °C.

    0 to 10 degrees south, 80 to 90 degrees west: the yearly cycle and, every few years, El Nino. Values are absolute
    temperatures, not anomalies. Times are decimal years as in `sunspots`.

    **Returns:** `DataArray(time, variable)` `[732, 1]`, variable `SST` in °C, times in years.

    **Raises:** `ValueError` when the file is not the one that was bundled (SHA-256).

    Reference: NOAA, ERSST v3b: Smith et al. 2008, *Improvements to NOAA's historical merged land-ocean surface
    temperature analysis*, J. Climate 21, 2283-2296; file as distributed by statsmodels.
    """
    entry = CATALOGUE["nino"]
    text = checked(FOLDER / entry.file, entry.sha256).decode("ascii")
    table = np.loadtxt(io.StringIO(text), delimiter=",", skiprows=1, ndmin=2)
    return _labelled("nino", entry, table[:, 1:].ravel(), table[0, 0] + 1 / 24)


def _labelled(name: str, entry: Entry, values: np.ndarray, origin: float) -> xr.DataArray:
    clock = Clock(entry.time_step, float(origin), entry.time_unit)
    attrs = {"source": entry.source, "licence": entry.licence, "sha256": entry.sha256}
    return labelled(values[:, None], entry.variables, clock, units=entry.units, attrs=attrs).rename(name)

"""Bundled and fetched series: sizes, known values, checksums, the folder; R peaks of the bundled electrocardiogram."""

import hashlib
import http.server
import os
import shutil
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dsrecon.datasets import available, bundled, cache_folder, catalogue, ecg, ett, nino, sunspots
from dsrecon.measures.beats import beats
from dsrecon.series import as_series

BUNDLED = {"ecg": ecg, "sunspots": sunspots, "nino": nino}
GIVEN = (os.environ.get("DSRECON_DATA"), str(Path(__file__).parents[2] / "shared" / "data"))
REAL = next((Path(folder) for folder in GIVEN if folder and (Path(folder) / "ETTh1.csv").is_file()), None)

TINY = (
    b"date,HUFL,HULL,MUFL,MULL,LUFL,LULL,OT\n"
    b"2016-07-01 00:00:00,1,2,3,4,5,6,7\n"
    b"2016-07-01 01:00:00,8,9,10,11,12,13,14\n"
)


# Bundled.


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_series_is_what_the_catalogue_says(name):
    data, entry = BUNDLED[name](), catalogue.CATALOGUE[name]
    assert data.dims == ("time", "variable") and data.name == name
    assert data.shape == (entry.samples, len(entry.variables)) and data.dtype == np.float64
    assert tuple(data["variable"].values) == entry.variables
    assert data.attrs["licence"] == entry.licence and data.attrs["source"] == entry.source
    assert data.attrs["sha256"] == hashlib.sha256((bundled.FOLDER / entry.file).read_bytes()).hexdigest()
    series = as_series(data)  # equidistant, finite, increasing
    assert series.clock.unit == entry.time_unit and series.units == entry.units
    np.testing.assert_allclose(series.clock.time_step, entry.time_step, rtol=1e-12)


def test_the_electrocardiogram_is_that_of_scipys_documentation():
    data = ecg()
    values = data.values[:, 0]
    np.testing.assert_allclose(values[[0, 1, 2, -3, -2, -1]], [-0.245, -0.215, -0.185, -0.405, -0.395, -0.385])
    np.testing.assert_allclose([values.mean(), values.std()], [-0.16510875, 0.5992473991177294], rtol=1e-12)
    np.testing.assert_allclose(data["time"].values, np.arange(108_000) / 360, rtol=1e-12)
    assert str(data["unit"].values[0]) == "mV"
    for word in ("Moody", "Goldberger", "PhysioNet"):
        assert word in data.attrs["source"] and word in (ecg.__doc__ or "")
    assert "ODC-By 1.0" in data.attrs["licence"]


def test_sunspots_have_their_dates_and_their_cycle():
    data = sunspots().isel(variable=0)
    assert float(data[0]) == 58.0 and float(data[-1]) == 0.8
    # January 1749 and December 2008 (the file), the month of the highest mean: October 1957
    np.testing.assert_allclose(data["time"].values[[0, -1]], [1749 + 1 / 24, 2009 - 1 / 24], rtol=1e-12)
    np.testing.assert_allclose(data["time"].values[data.values.argmax()], 1957 + 9.5 / 12, rtol=1e-9)
    power = np.abs(np.fft.rfft(data.values - data.values.mean())) ** 2
    frequency = np.fft.rfftfreq(len(data), 1 / 12)
    assert 10 < 1 / frequency[power.argmax()] < 12  # years


def test_nino_is_warmest_in_the_el_nino_of_1998_and_has_a_year():
    data = nino().isel(variable=0)
    assert float(data[0]) == 23.11 and float(data[-1]) == 22.07
    np.testing.assert_allclose(data["time"].values[data.values.argmax()], 1998 + 2.5 / 12, rtol=1e-9)
    power = np.abs(np.fft.rfft(data.values - data.values.mean())) ** 2
    np.testing.assert_allclose(np.fft.rfftfreq(len(data), 1 / 12)[power.argmax()], 1.0, rtol=1e-9)


@pytest.mark.parametrize("name", BUNDLED)
def test_a_tampered_bundled_file_is_refused(name, tmp_path, monkeypatch):
    entry = catalogue.CATALOGUE[name]
    good = (bundled.FOLDER / entry.file).read_bytes()
    (tmp_path / entry.file).write_bytes(good[:-3] + bytes([good[-3] ^ 1]) + good[-2:])
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match="is not the file that dsrecon knows") as caught:
        BUNDLED[name]()
    found = hashlib.sha256((tmp_path / entry.file).read_bytes()).hexdigest()
    assert all(word in str(caught.value) for word in (entry.file, entry.sha256, found, str(tmp_path)))


def test_the_notice_names_every_bundled_file_and_its_checksum():
    notice = (bundled.FOLDER / "NOTICE.md").read_text()
    for name in BUNDLED:
        entry = catalogue.CATALOGUE[name]
        assert entry.file in notice and entry.sha256 in notice
    for words in ("Moody", "Goldberger", "opendatacommons.org/licenses/by/1-0", "SciPy", "statsmodels", "WDC-SILSO"):
        assert words in notice


def test_the_table_has_a_row_for_each():
    table = available()
    assert list(table.index) == [*BUNDLED, "ETTh1", "ETTh2", "ETTm1", "ETTm2"]
    assert (table["where"] == ["bundled"] * 3 + ["fetched"] * 4).all()
    assert table.loc["ecg", "samples"] == 108_000 and table.loc["ETTm1", "time_step"] == 900
    assert table.loc["ETTh2", "variables"] == "HUFL HULL MUFL MULL LUFL LULL OT"
    assert table["licence"].str.len().min() > 0


# Fetched.


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of fetched files."""
    monkeypatch.setenv("DSRECON_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server on this machine that has TINY as ETTh1.csv; the catalogue points to it, without a checksum change."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "ETTh1.csv").write_bytes(TINY)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            asked.append(self.path)

    asked: list[str] = []
    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "served"))
    thread = threading.Thread(target=http_server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    _point(monkeypatch, f"http://127.0.0.1:{http_server.server_port}/ETTh1.csv")
    yield asked
    http_server.shutdown()
    http_server.server_close()
    thread.join()


def _point(monkeypatch, url: str, data: bytes | None = None) -> None:
    """Where ETTh1 is fetched from, and (where given) what it is."""
    entry = catalogue.CATALOGUE["ETTh1"]
    sha256 = entry.sha256 if data is None else hashlib.sha256(data).hexdigest()
    monkeypatch.setitem(catalogue.CATALOGUE, "ETTh1", entry._replace(url=url, sha256=sha256))


def test_a_file_is_fetched_once_and_kept(server, folder, monkeypatch):
    pytest.importorskip("pooch")
    _point(monkeypatch, catalogue.CATALOGUE["ETTh1"].url, TINY)
    data = ett("ETTh1")
    assert (folder / "ETTh1.csv").read_bytes() == TINY
    np.testing.assert_array_equal(data.values, np.arange(1.0, 15.0).reshape(2, 7))
    assert data["time"].values[1] == np.datetime64("2016-07-01T01:00")
    assert data.attrs["sha256"] == hashlib.sha256(TINY).hexdigest() and data.attrs["licence"] == "CC BY-ND 4.0"
    assert ett("ETTh1").identical(data) and len(server) == 1


def test_a_download_with_another_checksum_is_refused_and_not_kept(server, folder):
    pytest.importorskip("pooch")
    expected = catalogue.CATALOGUE["ETTh1"].sha256
    with pytest.raises(ValueError, match="is not the file that dsrecon knows") as caught:
        ett("ETTh1")
    words = ("ETTh1.csv", expected, hashlib.sha256(TINY).hexdigest(), str(folder), "127.0.0.1")
    assert all(word in str(caught.value) for word in words)
    assert list(folder.glob("*")) == [] and len(server) == 1


def test_a_changed_file_in_the_folder_is_refused_left_alone_and_not_fetched_over(server, folder, monkeypatch):
    _point(monkeypatch, catalogue.CATALOGUE["ETTh1"].url, TINY)
    folder.mkdir()
    (folder / "ETTh1.csv").write_bytes(TINY + b"2016-07-01 02:00:00,0,0,0,0,0,0,0\n")
    found = hashlib.sha256((folder / "ETTh1.csv").read_bytes()).hexdigest()
    for _ in range(2):  # the second time is no kinder
        with pytest.raises(ValueError, match="Move it away") as caught:
            ett("ETTh1")
        expected = catalogue.CATALOGUE["ETTh1"].sha256
        assert all(word in str(caught.value) for word in (expected, found, str(folder / "ETTh1.csv")))
    assert hashlib.sha256((folder / "ETTh1.csv").read_bytes()).hexdigest() == found and server == []


def test_without_a_network_the_message_says_where_to_put_the_file(folder, monkeypatch):
    pytest.importorskip("pooch")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    _point(monkeypatch, "http://127.0.0.1:9/ETTh1.csv")  # the discard port: nothing listens
    with pytest.raises(ConnectionError, match="cannot be fetched") as caught:
        ett("ETTh1")
    assert all(word in str(caught.value) for word in ("ETTh1.csv", str(folder), "DSRECON_DATA", "Without a network"))
    assert list(folder.glob("*")) == []


def test_a_missing_page_is_no_file(server, folder, monkeypatch):
    pytest.importorskip("pooch")
    _point(monkeypatch, catalogue.CATALOGUE["ETTh1"].url.replace("ETTh1", "elsewhere"))
    with pytest.raises(ConnectionError, match="404"):
        ett("ETTh1")
    assert list(folder.glob("*")) == []


def test_without_pooch_the_message_has_the_command(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"pip install 'dsrecon\[fetch\]'"):
        ett("ETTh1")
    monkeypatch.delenv("DSRECON_DATA")
    with pytest.raises(ImportError, match="DSRECON_DATA"):
        cache_folder()


def test_a_file_that_is_there_needs_no_pooch(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    _point(monkeypatch, "http://127.0.0.1:9/ETTh1.csv", TINY)
    folder.mkdir()
    (folder / "ETTh1.csv").write_bytes(TINY)
    assert ett().shape == (2, 7)


def test_the_systems_cache_is_the_default(monkeypatch):
    pooch = pytest.importorskip("pooch")
    monkeypatch.delenv("DSRECON_DATA", raising=False)
    assert cache_folder() == Path(pooch.os_cache("dsrecon"))
    monkeypatch.setenv("DSRECON_DATA", "~/somewhere")
    assert cache_folder() == Path.home() / "somewhere"


def test_another_name_is_refused():
    with pytest.raises(ValueError, match="name must be one of ETTh1, ETTh2, ETTm1, ETTm2: got 'ecg'"):
        ett("ecg")


@pytest.mark.skipif(REAL is None, reason="no ETTh1.csv in $DSRECON_DATA or ../shared/data")
def test_etth1_is_the_published_file(folder):
    assert REAL is not None
    folder.mkdir()
    shutil.copy(REAL / "ETTh1.csv", folder / "ETTh1.csv")
    data = ett()
    assert data.shape == (17_420, 7) and list(data["variable"].values)[-1] == "OT"
    assert data["time"].values[-1] == np.datetime64("2018-06-26T19:00")
    assert data.attrs["time_step"] == 3600
    np.testing.assert_allclose(data.sel(variable="OT").values[:2], [30.5310001373291, 27.78700065612793])


# R peaks.

# Beats that the cardiologists of the database annotated (types N, V, F, Q) in each half minute of the excerpt.
ANNOTATED = np.array([58, 54, 51, 46, 50, 50, 51, 50, 49, 50])


def _train(rate: float, noise: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two hundred beats at known, irregular times, with T waves, drift and white noise (of the R peak's height)."""
    rng = np.random.default_rng(seed)
    times = 1 + np.cumsum(rng.uniform(0.5, 1.1, 200))
    t = np.arange(0, times[-1] + 1.3, 1 / rate)
    apart = t[:, None] - times
    x = np.exp(-0.5 * (apart / 0.015) ** 2).sum(1) + 0.25 * np.exp(-0.5 * ((apart - 0.25) / 0.05) ** 2).sum(1)
    return x + 0.3 * np.sin(2 * np.pi * 0.3 * t) + noise * rng.standard_normal(len(t)), times


@pytest.mark.parametrize(
    ("rate", "noise", "within"), [(360, 0, 2e-4), (90, 0, 1e-3), (360, 0.05, 4e-3), (90, 0.05, 6e-3)]
)
def test_a_train_of_pulses_is_found_at_its_times(rate, noise, within):
    # The parabola finds a peak to a part of a sample (11 ms at 90 Hz); noise moves it: measured, twice that allowed.
    x, times = _train(rate, noise)
    found = beats(x, rate=float(rate))
    assert found.times.shape == times.shape
    np.testing.assert_allclose(found.times, times, rtol=0, atol=within)
    np.testing.assert_allclose(found.intervals, np.diff(times), rtol=0, atol=2 * within)


def test_the_beats_of_the_electrocardiogram_are_those_that_cardiologists_annotated():
    found = beats(ecg())
    counts = np.histogram(found.times, np.arange(0, 301, 30))[0]
    # Half minute 8 has the five seconds without a signal, in which 8 beats were annotated from the second lead.
    missed = ANNOTATED - counts
    assert (np.abs(np.delete(missed, 7)) <= 2).all() and 5 <= missed[7] <= 9
    # Of the annotations: 0.489, 0.567, 0.758 s.
    np.testing.assert_allclose(np.percentile(found.intervals, [5, 50, 95]), [0.489, 0.567, 0.758], rtol=0.02)
    np.testing.assert_array_equal(found.intervals, np.diff(found.times))
    lost = np.diff(found.times)[np.searchsorted(found.times, 210.0) - 1]
    assert lost > 4  # the gap is seen, not filled


@pytest.mark.parametrize("every", [2, 3, 4])
def test_beats_hardly_depend_on_the_rate(every):
    data = ecg()
    fine, coarse = beats(data).times, beats(data[::every]).times
    assert abs(len(fine) - len(coarse)) <= 2
    apart = np.abs(fine[:, None] - coarse).min(1)
    assert np.percentile(apart, 99) < 0.01


def test_beats_do_not_depend_on_unit_sign_origin_or_container():
    data = ecg()[: 360 * 40]
    found = beats(data)
    values = data.values[:, 0]
    for other in (beats(values, rate=360.0), beats(-1e3 * values + 5.0, rate=360.0), beats(as_series(data))):
        np.testing.assert_allclose(other.times, found.times, rtol=0, atol=1e-6)
    later = beats(data.assign_coords(time=data["time"] + 100))
    np.testing.assert_allclose(later.times, found.times + 100, rtol=0, atol=1e-6)


def test_a_drift_of_the_gain_and_a_burst_lose_no_beats_elsewhere():
    x, times = _train(180)
    t = np.arange(len(x)) / 180
    x = x * (1 + 9 * t / t[-1])
    x[180 * 60 : 180 * 62] += 100 * np.random.default_rng(1).standard_normal(360)
    found = beats(x, rate=180.0).times
    clean = times[(times < 59) | (times > 63)]
    assert np.abs(clean[:, None] - found).min(1).max() < 0.02


def test_what_does_not_vary_has_no_beats():
    rounding = np.full(1000, 1e3) + 1e-5 * np.random.default_rng(0).standard_normal(1000)
    for still in (np.zeros(1000), np.full(1000, 3.0), rounding):
        found = beats(still, rate=100.0)
        assert found.times.shape == (0,) and found.intervals.shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(1000), None), "rate is needed for an array"),
        ((np.zeros(1000), -1.0), "rate must be positive and finite: got -1.0"),
        ((np.zeros(1000), 40.0), "at least 50 samples a second: got 40"),
        ((np.zeros(150), 100.0), "at least 2 s: got 1.5 s"),
        ((np.zeros((1000, 2)), 100.0), "one lead: got 2, x0, x1"),
        (
            (np.where(np.arange(1000) == 7, np.nan, 1.0), 100.0),
            "must be finite: 1 values are missing, first at sample 7",
        ),
    ],
)
def test_bad_series_are_refused(arguments, message):
    series, rate = arguments
    with pytest.raises(ValueError, match=message):
        beats(series, rate=rate)


def test_times_in_another_unit_and_a_contradicting_rate_are_refused():
    with pytest.raises(ValueError, match="must be in seconds: got 'year'"):
        beats(sunspots())
    for data in (ecg(), as_series(ecg())):
        with pytest.raises(ValueError, match=r"time_step=0.004 contradicts|rate=250.0 contradicts the times"):
            beats(data, rate=250.0)

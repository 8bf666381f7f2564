"""Files of series in."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dsrecon import read_series


@pytest.fixture
def table(tmp_path):
    frame = pd.DataFrame({"time": 0.5 * np.arange(20), "u": np.sin(np.arange(20.0)), "v": np.cos(np.arange(20.0))})
    frame.to_csv(tmp_path / "a.csv", index=False)
    return tmp_path / "a.csv", frame


def test_csv_takes_its_time_column_as_time(table):
    path, frame = table
    series = read_series(path)
    assert series.names == ("u", "v")
    assert series.clock.time_step == 0.5
    np.testing.assert_array_equal(series.values, frame[["u", "v"]].to_numpy())


def test_csv_with_dates(tmp_path):
    index = pd.date_range("2020-01-01", periods=10, freq="15min")
    pd.DataFrame({"date": index, "load": np.arange(10.0)}).to_csv(tmp_path / "b.csv", index=False)
    series = read_series(tmp_path / "b.csv")
    assert series.clock.time_step == 900
    assert series.clock.times(2)[1] == np.datetime64("2020-01-01T00:15")


def test_columns_are_chosen_by_name_in_the_order_given(table):
    path, frame = table
    series = read_series(path, columns=["v"])
    assert series.names == ("v",)
    np.testing.assert_array_equal(series.values[:, 0], frame["v"])
    assert read_series(path, columns=["v", "u"]).names == ("v", "u")


def test_netcdf_and_npy_hold_the_same(tmp_path):
    values = np.random.default_rng(0).normal(size=(30, 2))
    data = xr.DataArray(values, dims=("time", "variable"), coords={"time": np.arange(30) * 0.1, "variable": ["p", "q"]})
    data.to_netcdf(tmp_path / "c.nc", engine="h5netcdf")
    np.save(tmp_path / "c.npy", values)
    one, two = read_series(tmp_path / "c.nc"), read_series(tmp_path / "c.npy", time_step=0.1)
    np.testing.assert_array_equal(one.values, two.values)
    assert one.names == ("p", "q")
    assert two.names == ("x0", "x1")
    assert one.clock.time_step == pytest.approx(two.clock.time_step)
    assert read_series(tmp_path / "c.npy", columns=["x1"]).names == ("x1",)
    assert read_series(tmp_path / "c.nc", columns=["q"]).names == ("q",)
    data.to_dataset("variable").to_netcdf(tmp_path / "d.nc", engine="h5netcdf")
    assert read_series(tmp_path / "d.nc").names == ("p", "q")


def test_bad_files_are_named(tmp_path, table):
    path, _ = table
    with pytest.raises(FileNotFoundError, match="no file"):
        read_series(tmp_path / "none.csv")
    (tmp_path / "a.xlsx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a.xlsx must end in one of .csv, .nc, .npy: got '?.xlsx"):
        read_series(tmp_path / "a.xlsx")
    with pytest.raises(ValueError, match="has no column 'w': it has 'u', 'v'"):
        read_series(path, columns=["w"])
    (tmp_path / "headless.csv").write_text("1.0,2.0\n3.0,4.0\n5.0,6.0\n")
    with pytest.raises(ValueError, match="must begin with a line of column names"):
        read_series(tmp_path / "headless.csv")
    (tmp_path / "bad.nc").write_text("no netCDF")
    with pytest.raises(ValueError, match="cannot be read as netCDF"):
        read_series(tmp_path / "bad.nc")
    np.save(tmp_path / "objects.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read as a plain .npy array"):
        read_series(tmp_path / "objects.npy")
    (tmp_path / "word.csv").write_text("time,u\n0,1.0\n1,oops\n2,3.0\n")
    with pytest.raises(ValueError, match=r"column 'u' must hold numbers: got .* \('oops' at line 3\)"):
        read_series(tmp_path / "word.csv")
    (tmp_path / "when.csv").write_text("time,u\nmonday,1.0\ntuesday,2.0\n")
    with pytest.raises(ValueError, match=r"column 'time' must hold numbers or dates .*: got 'monday' at line 2"):
        read_series(tmp_path / "when.csv")


@pytest.mark.parametrize(
    "text, message",
    [
        ("time,u\n0,1\n\n1,oops\n2,3\n", r"'oops' at line 4"),
        ("time,u\n0,1\n1,inf\n2,3\n", r"'u' is inf at line 3"),
        ("time,u\n0,1\n1,2\n1,3\n", r"they repeat at line 4 \("),
        ("time,u\n0,1\n1,2\n2,3\n7,3\n", r"the step before line 5 is 5 where"),
        ('name,u\n"a\nb",1\nc,oops\n', r"column 'name' must hold numbers.* at row 0"),  # a cell of two lines
    ],
)
def test_the_lines_of_a_csv_file_are_counted_as_an_editor_does(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_series(tmp_path / "a.csv")


def test_a_column_alone_may_be_a_text(table):
    path, _ = table
    assert read_series(path, columns="u").names == ("u",)
    with pytest.raises(ValueError, match="has no column 'uv': it has 'u', 'v'"):
        read_series(path, columns="uv")


@pytest.mark.parametrize("separator, decimal", [(",", "."), (";", "."), (";", ","), ("\t", ".")])
def test_csv_of_other_separators_and_decimals(table, tmp_path, separator, decimal):
    _, frame = table
    frame.to_csv(tmp_path / "d.csv", index=False, sep=separator, decimal=decimal)
    series = read_series(tmp_path / "d.csv")
    assert series.names == ("u", "v") and series.clock.time_step == 0.5
    np.testing.assert_allclose(series.values, frame[["u", "v"]].to_numpy(), rtol=1e-15)


def test_empty_cells_are_missing_and_lost_rows_come_back_by_resampling(table, tmp_path):
    _, frame = table
    frame.loc[3, "u"] = np.nan
    frame.drop(index=[7, 8]).to_csv(tmp_path / "e.csv", index=False)
    with pytest.raises(ValueError, match="equidistant"):
        read_series(tmp_path / "e.csv")
    values = read_series(tmp_path / "e.csv", resample=0.5).values
    assert np.flatnonzero(np.isnan(values[:, 0])).tolist() == [3, 7, 8]
    assert np.flatnonzero(np.isnan(values[:, 1])).tolist() == [7, 8]


def test_months_are_steps_where_a_calendar_is_asked_for(tmp_path):
    months = pd.date_range("2019-01-01", periods=15, freq="MS")
    pd.DataFrame({"date": months, "u": np.arange(15.0)}).to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(ValueError, match="equidistant"):
        read_series(tmp_path / "m.csv")
    clock = read_series(tmp_path / "m.csv", calendar=True).clock
    np.testing.assert_array_equal(clock.times(2, 15), np.array(["2020-04-01", "2020-05-01"], "datetime64[ns]"))

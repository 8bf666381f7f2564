"""A fit that is killed, interrupted or robbed of its disk goes on as if nothing had happened; the files it lives in."""

import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsrecon.modelfile import FORMAT, VERSION, read_module, read_tree, write_module, write_tree
from dsrecon.training import fit, radam

# This module is also imported by processes that fork before JAX starts its threads: no arrays of JAX at the top.

CHECKPOINT = sys.modules["dsrecon.training.checkpoint"]
FIT = sys.modules["dsrecon.training.fit"]
TESTS = Path(__file__).parent
POINTS = np.arange(6.0).reshape(3, 2)


class Point(eqx.Module):
    w: jax.Array
    label: str = eqx.field(static=True, default="point")


class Cloud(eqx.Module):
    """A sampler that holds data."""

    data: jax.Array

    def __call__(self, key):
        return self.data[drawn(key) % len(self.data)]


def drawn(key):
    """Two random numbers, at no cost in compiling."""
    return jax.random.key_data(key).astype(int)


def cloud(shift=0.0):
    return Cloud(jnp.asarray(np.random.default_rng(0).normal(size=(40, 2)) + shift, float))


def forced(model, state, batch, key):
    """A loss with a state that every update changes, and noise of its own."""
    pull = state["alpha"] * (drawn(key) % 1000 / 1000).astype(model.w.dtype)
    value = jnp.sum((jnp.tanh(model.w)[None] - batch + pull[None]) ** 2)
    return value, ({"alpha": state["alpha"] * 0.9}, {})


def stateless(model, state, batch, key):
    return jnp.sum((model.w[None] - batch) ** 2), (state, {})


def fuse(model, state, batch, key):
    """NaN on the update at which the fuse of the run has burnt down."""
    value = stateless(model, None, batch, key)[0]
    return jnp.where(state["left"] == 0, jnp.nan, value), ({"left": state["left"] - 1}, {})


def scored(models):
    score = np.asarray((models.w**2).sum(1))
    reasons = np.array([f"too far: {s:.2f}" if s > 3 else "" for s in score], dtype=object)
    return {"score": np.where(score > 20, np.nan, score), "failure": reasons, "rank": np.arange(len(score))}


def alphas(runs=3):
    return {"alpha": jnp.linspace(0.1, 0.3, runs)}


def train(checkpoint=None, *, points=POINTS, loss=forced, sampler=None, optimiser=None, **options):
    options = {
        "steps": 12,
        "every": 3,
        "key": jax.random.split(jax.random.key(3), len(points)),
        "state": alphas(len(points)) if loss is forced else None,
        "evaluate": scored,
        "threads": 1,
        **options,
    }
    optimiser = optax.sgd(0.1, momentum=0.9) if optimiser is None else optimiser
    sampler = cloud() if sampler is None else sampler
    model = Point(jnp.asarray(points, float))
    with jax.numpy_dtype_promotion("standard"):
        return fit(model, loss, sampler, optimiser, checkpoint=checkpoint, **options)


def facts(result):
    """All that must be the same, bit for bit."""
    model, history = result
    found = {"w": np.asarray(model.w), "label": model.label}
    found |= {k: getattr(history, k) for k in ("loss", "evaluated_at", "best_at", "failed_at", "interrupted")}
    return found | {f"score {k}": v for k, v in history.scores.items()}


def assert_same(one, other):
    assert_equal(facts(one), facts(other))


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        wanted = other[name]
        if not isinstance(value, np.ndarray):
            assert value == wanted, name
            continue
        assert value.dtype == wanted.dtype and value.shape == wanted.shape, name
        # NaN is to be the same NaN
        same = value.tolist() == wanted.tolist() if value.dtype == object else value.tobytes() == wanted.tobytes()
        assert same, name


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fit.ckpt"


@pytest.fixture(autouse=True)
def every_chunk_is_written(monkeypatch):
    monkeypatch.setattr(CHECKPOINT, "SHARE", np.inf)


PROGRAMS = {}


@pytest.fixture(autouse=True)
def programs_are_compiled_once(monkeypatch):
    """Most fits here are one fit over again; those of other processes (SIGKILL) do their own compiling."""
    compile = jax.stages.Lowered.compile

    def once(lowered):
        program = str(lowered.in_tree) + lowered.as_text()
        if program not in PROGRAMS:
            PROGRAMS[program] = compile(lowered)
        return PROGRAMS[program]

    monkeypatch.setattr(jax.stages.Lowered, "compile", once)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A fit without a checkpoint, the same fit with one, and the file."""
    path = tmp_path_factory.mktemp("finished") / "fit.ckpt"
    return train(), train(path), path


class Crash(Exception):
    pass


def crashing(after):
    """Scores for so many evaluations, then a crash: the chunk in flight is lost."""
    left = [after]

    def evaluate(models):
        left[0] -= 1
        if left[0] < 0:
            raise Crash
        return scored(models)

    return evaluate


# --- going on --------------------------------------------------------------------------------------------


CASES = {
    "ensemble": {},
    "threads": {"threads": 3},
    "one run": {"points": POINTS[1], "single": True},
    "a shorter last chunk": {"steps": 11},
    "a run that stops": {"loss": fuse, "state": {"left": [-1, 4, -1]}},
    "a number as state": {"points": POINTS[1], "single": True, "state": {"alpha": 0.5}},
}


def case(name):
    options = dict(CASES[name])
    if options.pop("single", False):
        options["key"] = jax.random.key(3)
        options.setdefault("state", {"alpha": jnp.asarray(0.2)})
    if name == "a run that stops":
        options["state"] = jax.tree.map(jnp.asarray, {"left": jnp.array([-1, 4, -1])})
    return options


def goes_on(path, options):
    """Two crashes on the way, at different chunks."""
    wanted = train(**options)
    groups = options.get("threads", 1)
    for chunks in (2, 1):
        with pytest.raises(Crash):
            train(path, **{**options, "evaluate": crashing(chunks * groups)})
    assert_same(train(path, **options), wanted)
    return wanted


@pytest.mark.parametrize("name", CASES)
def test_a_fit_goes_on_where_it_crashed(name, path):
    goes_on(path, case(name))


def test_a_fit_goes_on_in_single_precision(path, float32):
    model, history = goes_on(path, {})
    assert model.w.dtype == history.loss.dtype == np.float32


def test_a_fit_with_radam_goes_on(path):
    goes_on(path, {"optimiser": radam(0.1, 0.01, 12)})


def test_a_fit_without_scores_goes_on(path, monkeypatch):
    options = {"evaluate": None, "loss": stateless}
    wanted = train(**options)
    write = CHECKPOINT.write_tree

    def crash(*arguments):
        write(*arguments)
        raise Crash

    monkeypatch.setattr(CHECKPOINT, "write_tree", crash)
    with pytest.raises(Crash):
        train(path, **options)
    monkeypatch.setattr(CHECKPOINT, "write_tree", write)
    assert_same(train(path, **options), wanted)
    assert wanted[1].scores == {}


def test_a_checkpoint_changes_nothing(finished):
    wanted, found, path = finished
    assert_same(found, wanted)
    assert os.listdir(path.parent) == [path.name]
    assert found[1].scores["failure"].dtype == object and any(found[1].scores["failure"].ravel())
    assert np.isnan(found[1].scores["score"]).any()  # which JSON has no word for


def test_a_finished_fit_comes_back_without_work(finished, monkeypatch):
    wanted, first, path = finished
    content = path.read_bytes()
    monkeypatch.setattr(FIT, "compiled", None)  # what compiles
    model, history = train(path, evaluate=crashing(0))
    assert_same((model, history), wanted)
    assert (history.seconds, history.compile_seconds) == (first[1].seconds, first[1].compile_seconds)
    assert path.read_bytes() == content


def test_a_fit_whose_runs_have_all_stopped_is_finished(path, monkeypatch):
    options = {"loss": fuse, "state": {"left": jnp.array([2, 0, 1])}}
    wanted = train(path, **options)
    assert wanted[1].loss.shape == (3, 3)
    monkeypatch.setattr(FIT, "compiled", None)
    assert_same(train(path, **options), wanted)


def test_sessions_add_up(path):
    with pytest.raises(Crash):
        train(path, evaluate=crashing(2))
    before = read_tree(path, "dsrecon-checkpoint")
    assert before["done"] == 6 and before["seconds"] > 0
    history = train(path)[1]
    assert history.seconds > before["seconds"] and history.compile_seconds > before["compile_seconds"]


@pytest.mark.parametrize("before, after", [(1, 3), (3, 1)])
def test_a_fit_goes_on_with_other_threads(before, after, path, finished):
    with pytest.raises(Crash):
        train(path, threads=before, evaluate=crashing(2 * before))
    model, history = train(path, threads=after)
    # another grouping may round sums otherwise
    np.testing.assert_allclose(model.w, finished[0][0].w, rtol=1e-12)
    np.testing.assert_allclose(history.loss, finished[0][1].loss, rtol=1e-12)
    assert history.loss[:6].tobytes() == finished[0][1].loss[:6].tobytes() or before == 3


def test_writing_takes_no_more_than_its_share(path, monkeypatch):
    written, write = [], CHECKPOINT.write_tree

    def slow(path, tree, format):
        time.sleep(0.05)
        written.append(tree["done"])
        return write(path, tree, format)

    monkeypatch.setattr(CHECKPOINT, "write_tree", slow)
    monkeypatch.setattr(CHECKPOINT, "SHARE", 0.05)
    wanted = train(path, every=1)
    # twelve chunks of less than a second in all, when the next writing is due a second after the first
    assert written[0] == 1 and written[-1] == 12 and len(written) < 6
    monkeypatch.setattr(CHECKPOINT, "SHARE", np.inf)
    written.clear()
    path.unlink()
    assert_same(train(path, every=1), wanted)
    assert written == list(range(1, 13))


# --- another fit, another file ---------------------------------------------------------------------------


def nudged():
    """The start values of a fit with one number changed in its last bit."""
    points = POINTS.copy()
    points[2, 1] = np.nextafter(points[2, 1], 9)
    return points


OTHERS = {
    "steps": (lambda: {"steps": 11}, r"steps: 12, here 11"),
    "every": (lambda: {"every": 4}, r"every: 3, here 4"),
    "runs": (lambda: {"points": POINTS[:2]}, r"file: runs: 3, here 2\. Go on"),
    "keys": (lambda: {"key": jax.random.split(jax.random.key(4), 3)}, r"file: key: key<fry>\[3\] sha256:"),
    "start": (lambda: {"points": nudged()}, r"file: model\.w: float64\[3, 2\] sha256:\w+\.\.\., here float64\[3, 2\]"),
    "state": (lambda: {"state": {"alpha": jnp.ones(3)}}, r"file: state\['alpha'\]: float64\[3\] sha256"),
    "other state": (
        lambda: {"loss": fuse, "state": {"left": jnp.ones(3)}},
        r"state\['left'\]: nothing, here float64\[3\]",
    ),
    "data": (lambda: {"sampler": cloud(1e-9)}, r"file: sampler\.data: float64\[40, 2\] sha256"),
    "identity": (
        lambda: {"identity": '{"validation": 0.2}'},
        r'file: identity: , here \{"validation": 0\.2\}\. Go on with what it was begun with, or give another path',
    ),
    "no scores": (lambda: {"evaluate": None}, r"file: evaluate: True, here False\. Go on"),
    "loss": (
        lambda: {"loss": lambda m, s, b, k: forced(m, {"alpha": s["alpha"] * 1.0000001}, b, k)},
        r"file: program: sha256:\w+\.\.\., here sha256:\w+\.\.\.\. Go on",
    ),
    "rate": (lambda: {"optimiser": optax.sgd(0.11, momentum=0.9)}, r"file: program: sha256:\w+\.\.\., here"),
    "optimiser": (
        lambda: {"optimiser": optax.sgd(0.1)},
        r"optimiser\[0\]\.trace\.w: float64\[3, 2\] \w.*, here nothing",
    ),
    "injected rate": (
        lambda: {"optimiser": optax.inject_hyperparams(optax.sgd)(0.2)},
        r"optimiser\.hyperparams\['learning_rate'\]: nothing, here float64\[3\]",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_checkpoint_of_another_fit_is_refused(name, finished):
    change, message = OTHERS[name]
    path = finished[2]
    content = path.read_bytes()
    options = change()
    with pytest.raises(ValueError, match=rf"fit\.ckpt is the checkpoint of another fit\. .*{message}"):
        train(path, **({"loss": forced, "state": alphas(len(options.get("points", POINTS)))} | options))
    assert path.read_bytes() == content


def test_settings_that_differ_are_named_and_nothing_else(path):
    train(path, steps=1, every=1, identity='{"validation": 0.2, "batch": 16}')
    with pytest.raises(ValueError, match=r"In the file: validation: 0\.2, here 0\.3\. Go on"):
        train(path, steps=1, every=1, identity='{"validation": 0.3, "batch": 16}', optimiser=optax.sgd(0.1))


def test_another_precision_is_another_fit(finished, float32):
    with pytest.raises(ValueError, match=r"model\.w: float64\[3, 2\] .*here float32\[3, 2\]"):
        train(finished[2])


def test_another_jax_is_another_fit(finished, monkeypatch):
    monkeypatch.setattr(jax, "__version__", "99.1")
    with pytest.raises(ValueError, match=rf"file: jax: {jax.lib.__version__}.*, here 99\.1 on cpu"):
        train(finished[2])


def test_a_captured_array_is_part_of_the_program(path):
    """A sampler that is a plain function: its data are constants of the program."""
    data = np.random.default_rng(1).normal(size=(500, 2))

    def options(data):
        kept = jnp.asarray(data)
        return {"sampler": lambda key: kept[drawn(key) % 500], "steps": 1, "every": 1}

    wanted = train(path, **options(data))
    assert_same(train(path, **options(data)), wanted)
    data[250, 1] = np.nextafter(data[250, 1], 9)
    with pytest.raises(ValueError, match=r"file: program:"):
        train(path, **options(data))


def damaged(content):
    line, _, body = content.partition(b"\n")
    middle = len(line) + len(body) // 2
    yield from ((f"cut at {n}", content[:n]) for n in (0, 1, 20, len(line), len(line) + 1, middle, len(content) - 1))
    yield "longer", content + b"x"
    yield "a bit", content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
    yield "a digit", content.replace(b'"done": {"value": 12', b'"done": {"value": 11')
    yield "text", b"Dear reader,\nthis is no checkpoint.\n"
    yield "other JSON", b"[1, 2]\n"


def test_a_damaged_file_is_named_and_left(finished, path):
    for what, content in damaged(finished[2].read_bytes()):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"^{path} is (damaged|truncated|cut short|not a dsrecon checkpoint file)"
        ):
            train(path)
        assert path.read_bytes() == content, what


def test_a_model_file_is_no_checkpoint(path):
    write_module(path, Point(jnp.ones(2)))
    with pytest.raises(
        ValueError, match=r"fit\.ckpt is not a dsrecon checkpoint file \(it begins with .*dsrecon-model"
    ):
        train(path)


# --- Ctrl-C ----------------------------------------------------------------------------------------------


@pytest.fixture
def ctrl_c():
    """Interrupts the main thread, as the terminal does; from a thread of the pool, when it waits for the pool."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    main = threading.main_thread().ident

    def waits():
        frame = sys._current_frames()[main]
        while frame and frame.f_code.co_name != "_finished":
            frame = frame.f_back
        return frame is not None

    def press():
        while threading.get_ident() != main and not waits():
            time.sleep(0.002)
        signal.pthread_kill(main, signal.SIGINT)

    yield press
    signal.signal(signal.SIGINT, before)


def pressing(ctrl_c, at):
    """Scores; Ctrl-C during the evaluation number `at`."""
    seen = []

    def evaluate(models):
        seen.append(models)
        if len(seen) == at:
            ctrl_c()
            time.sleep(0.1)  # the main thread hears of it while this one still works
        return scored(models)

    return evaluate


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("threads", [1, 3])
def test_an_interrupted_fit_gives_its_best_and_goes_on(at, threads, ctrl_c, path):
    wanted = train(threads=threads)
    history = train(path, threads=threads, evaluate=pressing(ctrl_c, (at - 1) * threads + 1))[1]
    assert history.interrupted and not wanted[1].interrupted
    # the chunk in flight has ended and counts
    assert history.evaluated_at.tolist() == [3, 6][:at] and len(history.loss) == 3 * at
    assert history.loss.tobytes() == wanted[1].loss[: 3 * at].tobytes()
    assert (history.best_at <= 3 * at).all() and read_tree(path, "dsrecon-checkpoint")["done"] == 3 * at
    assert_same(train(path, threads=threads), wanted)


def test_an_interrupt_in_the_last_chunk_is_too_late(ctrl_c, finished):
    assert_same(train(evaluate=pressing(ctrl_c, 4)), finished[0])


def test_a_second_ctrl_c_does_not_wait(ctrl_c, path, monkeypatch):
    release, heard, calls = threading.Event(), threading.Event(), []

    def show(bar, text, refresh=True):
        if text == "interrupted: this chunk is the last; Ctrl-C again drops it":
            heard.set()

    def evaluate(models):
        calls.append(1)
        if len(calls) == 3:
            ctrl_c()
            assert heard.wait(60)
            ctrl_c()
            release.wait(60)
        return scored(models)

    monkeypatch.setattr(FIT.tqdm, "set_postfix_str", show)
    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        train(path, evaluate=evaluate)
    assert time.perf_counter() - began < 30 and len(calls) == 3
    release.set()
    assert read_tree(path, "dsrecon-checkpoint")["done"] == 6


def test_an_interrupt_before_anything_is_done_is_one(ctrl_c, path, monkeypatch):
    def compiling(*_):
        ctrl_c()
        time.sleep(10)

    monkeypatch.setattr(FIT, "compiled", compiling)
    with pytest.raises(KeyboardInterrupt):
        train(path)
    assert not path.exists()


def test_an_interrupt_while_a_resumed_fit_compiles_gives_its_best(ctrl_c, path, monkeypatch):
    with pytest.raises(Crash):
        train(path, evaluate=crashing(2))
    content = path.read_bytes()

    def compiling(*_):
        ctrl_c()
        time.sleep(10)

    monkeypatch.setattr(FIT, "compiled", compiling)
    history = train(path)[1]
    assert history.interrupted and history.evaluated_at.tolist() == [3, 6]
    assert path.read_bytes() == content


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupt_inside_the_writing_leaves_a_whole_file(when, ctrl_c, path, monkeypatch, finished):
    write, calls = CHECKPOINT.write_tree, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) != 2:
            return write(*arguments)
        if when == "after":
            write(*arguments)
        ctrl_c()
        time.sleep(10)

    monkeypatch.setattr(CHECKPOINT, "write_tree", interrupted)
    history = train(path)[1]
    assert history.interrupted and history.evaluated_at.tolist() == [3, 6] and len(calls) == 3
    assert os.listdir(path.parent) == [path.name]
    assert_same(train(path), finished[0])


def test_fit_runs_in_another_thread(finished, path):
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(Crash):
            pool.submit(in_float64, path, evaluate=crashing(1)).result()
        assert_same(pool.submit(in_float64, path).result(), finished[0])


def in_float64(*arguments, **options):
    with jax.enable_x64():
        return train(*arguments, **options)


# --- the disk --------------------------------------------------------------------------------------------


def test_what_cannot_be_written_is_known_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(FIT, "compiled", None)
    with pytest.raises(FileNotFoundError, match=r"cannot write a checkpoint: .*missing is no folder .*fit\.ckpt"):
        train(tmp_path / "missing" / "fit.ckpt")
    (tmp_path / "plain").write_text("a file")
    with pytest.raises(OSError, match=r"cannot write a checkpoint: .*plain is no folder"):
        train(tmp_path / "plain" / "fit.ckpt")
    with pytest.raises(OSError, match=r"directory: .*test_what"):
        train(tmp_path)
    # permissions bind everybody but root, and the tests may run as root: the answer of the system is played
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match=r"no folder that can be written"):
        train(tmp_path / "fit.ckpt")
    assert os.listdir(tmp_path) == ["plain"]


def test_leftovers_of_killed_writers_go(path, finished):
    old, other, young = (path.with_name(n) for n in (".fit.ckpt.77.part", ".other.77.part", ".fit.ckpt.78.part"))
    for part in (old, other, young):
        part.write_bytes(b"half a checkp")
    os.utime(young, (time.time() + 600,) * 2)  # somebody writes it now
    assert_same(train(path), finished[0])
    assert sorted(os.listdir(path.parent)) == sorted([other.name, young.name, path.name])


def test_file_and_folder_are_on_the_disk(path, monkeypatch):
    synced, fsync = [], os.fsync

    def record(handle):
        status = os.fstat(handle)
        synced.append((stat.S_ISDIR(status.st_mode), status.st_size, path.exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", record)
    write_tree(path, {"a": np.ones(1000)}, "dsrecon-checkpoint")
    (folder, size, there), (last, _, renamed) = synced
    assert (folder, there, last, renamed) == (False, False, True, True) and size == path.stat().st_size


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    command = shutil.which("mount")
    made = command and subprocess.run(
        [command, "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if not made or made.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.strip() if made else 'no mount'}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_the_fit_by_name(small_disk, finished):
    path, ballast = small_disk / "fit.ckpt", small_disk / "ballast"
    calls = []

    def filling(models):
        calls.append(1)
        if len(calls) == 3:
            with suppress(OSError):
                ballast.write_bytes(bytes(1 << 17))
        return scored(models)

    with pytest.raises(OSError, match=rf"No space left on device: .*{path}"):
        train(path, evaluate=filling)
    assert sorted(os.listdir(small_disk)) == ["ballast", "fit.ckpt"]
    assert read_tree(path, "dsrecon-checkpoint")["done"] == 6
    ballast.unlink()
    assert_same(train(path), finished[0])


# --- SIGKILL ---------------------------------------------------------------------------------------------


FORKS = """
import os, random, signal, sys, threading, time, warnings

warnings.simplefilter("ignore")  # JAX warns of forks: it has no threads yet
import test_checkpoint as t

folder, where, kills, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
path = os.path.join(folder, "fit.ckpt")
options = {**t.LONG, "steps": int(sys.argv[5])}
moments = random.Random(seed)
t.CHECKPOINT.SHARE = float("inf")  # every chunk is written


def start(result, prepare=lambda: None):
    child = os.fork()
    if child:
        return child
    prepare()
    t.keep(os.path.join(folder, result), t.train(path, **options))
    os._exit(0)


def finish(result):
    code = os.waitstatus_to_exitcode(os.waitpid(start(result), 0)[1])
    assert code == 0, code


def kill_while_compiling():
    compiled = t.FIT.compiled

    def compiling(*arguments):
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGKILL)).start()
        compiled(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)  # at the latest: a busy machine may be late with the timer

    t.FIT.compiled = compiling


def die_while_compiling():
    code = os.waitstatus_to_exitcode(os.waitpid(start("never", kill_while_compiling), 0)[1])
    assert code == -signal.SIGKILL, code


def kill(child, after):
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def wait_for_a_file():
    began = time.perf_counter()
    while not os.path.exists(path):
        assert time.perf_counter() - began < 60
        time.sleep(0.005)


began = time.perf_counter()
finish("whole")
lasts = time.perf_counter() - began
for i in range(kills):
    os.remove(path)
    if where == "compiling":
        die_while_compiling()
        assert not os.path.exists(path)
    child = start("never")
    if where != "anywhere":
        wait_for_a_file()
    kill(child, moments.uniform(0, lasts if where == "anywhere" else 0.3))
    there, left = os.path.exists(path), sum(name.endswith(".part") for name in os.listdir(folder))
    if where == "compiling":
        die_while_compiling()
    finish(f"resumed-{i}")
    print(int(there), left, sum(name.endswith(".part") for name in os.listdir(folder)), flush=True)
"""

LONG = {"every": 1}


def keep(path, result):
    write_tree(path, facts(result), "test")


def killed(folder, where, kills, steps, seed=0):
    """Kill fits at random moments: whether each had a checkpoint by then, and whether one was half written."""
    run = subprocess.run(
        [sys.executable, "-c", FORKS, *(str(a) for a in (folder, where, kills, seed, steps))],
        env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", "JAX_ENABLE_X64": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert run.returncode == 0, run.stderr
    wanted = facts(train(**LONG, steps=steps))  # in this process, without a checkpoint
    for name in ["whole", *(f"resumed-{i}" for i in range(kills))]:
        assert_equal(read_tree(folder / name, "test"), wanted)
    lines = [[int(n) for n in line.split()] for line in run.stdout.splitlines()]
    assert len(lines) == kills and not any(left for *_, left in lines)  # of half-written files, once the fit has ended
    return [(bool(there), bool(part)) for there, part, _ in lines]


def test_killed_fits_go_on(tmp_path):
    """Killed while it compiles, while it trains and writes, and while it compiles again."""
    assert killed(tmp_path, "compiling", kills=1, steps=400)[0][0]  # enough not to have ended when it is killed


@pytest.mark.slow
@pytest.mark.parametrize("where", ["anywhere", "writing"])
def test_twenty_killed_fits_go_on(where, tmp_path):
    moments = killed(tmp_path, where, kills=20, steps=300)
    if where == "anywhere":
        assert {there for there, _ in moments} == {True, False}  # some died while they compiled
    else:
        assert any(part for _, part in moments)  # some died with a file half written


# --- trees on disk ---------------------------------------------------------------------------------------


class Pair(NamedTuple):
    left: object
    right: object = 1


class Twisted(Pair):
    def __new__(cls, *_):
        raise AssertionError("a reader called a class of the file")


def tree():
    key = jax.random.split(jax.random.key(5, impl="rbg"), 2)
    return {
        "arrays": [np.arange(3, dtype=np.int8), np.zeros((0, 2)), np.float32([[1, np.nan]]), np.array(True)],
        "jax": (jnp.arange(4.0), jnp.ones((2, 2), jnp.bfloat16), jnp.asarray(1, jnp.uint8)),
        "texts": np.array(["a", "längere"]),
        "objects": np.array([["x", None], [1.5, 3]], dtype=object),
        "keys": key,
        "named": Pair({"a": (1, [])}, Pair(None)),
        "numbers": [1, -0.0, float("inf"), True, "text", None, 2**70],
        "optimiser": optax.adam(0.1).init(jnp.ones(2)),
        "module": Point(jnp.ones(2)),
    }


def test_a_tree_comes_back_as_it_went(tmp_path):
    wanted = tree()
    found = read_tree(write_tree(tmp_path / "t", wanted, "test"), "test")
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert type(a) is type(b)
        if not isinstance(a, np.ndarray | jax.Array):
            assert repr(a) == repr(b)
            continue
        assert a.dtype == b.dtype and a.shape == b.shape
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        a, b = np.asarray(a), np.asarray(b)
        assert a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes()


def test_a_named_tuple_is_filled_not_called(tmp_path):
    made = tuple.__new__(Twisted, [3, 4])
    found = read_tree(write_tree(tmp_path / "t", made, "test"), "test")
    assert type(found) is Twisted and found == (3, 4)


@pytest.mark.parametrize(
    "value, message",
    [
        ({"f": len}, r"tree\['f'\] cannot be written to a model file: it is a builtin_function_or_method"),
        ([np.array([1, {}], dtype=object)], r"tree\[0\] cannot be written .*: its element 1 is a dict"),
        (Pair(1, {1: 2}), r"tree\.right cannot be written to a model file: it is a dict"),
        ((set(),), r"tree\[0\] cannot be written to a model file: it is a set"),
    ],
)
def test_what_cannot_be_stored_is_named(value, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_tree(tmp_path / "t", value, "test")
    assert not list(tmp_path.iterdir())


def forged(path, tree, body=b""):
    """A file with its checksum right, as a forger would make it."""
    digest = hashlib.sha256(json.dumps(tree).encode() + body).hexdigest()
    header = {"format": FORMAT, "version": 1, "bytes": len(body), "sha256": digest, "tree": tree}
    path.write_bytes(json.dumps(header).encode() + b"\n" + body)
    return path


@pytest.mark.parametrize(
    "name", ["os:system", "builtins:tuple", "os:stat_result", "builtins:exec", "typing:NamedTuple", ":"]
)
def test_only_named_tuples_are_filled(name, tmp_path):
    with pytest.raises(ValueError, match="needs the class"):
        read_tree(forged(tmp_path / "t", {"namedtuple": name, "fields": {}}), FORMAT)


def test_a_named_tuple_with_other_fields_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds a Pair with fields \['middle'\]: this dsrecon's has"):
        read_tree(
            forged(tmp_path / "t", {"namedtuple": f"{__name__}:Pair", "fields": {"middle": {"value": 1}}}), FORMAT
        )


def test_a_lookup_runs_nothing(tmp_path, monkeypatch):
    module = type(sys)("lazy")
    module.__getattr__ = lambda name: pytest.fail("a reader ran code of a module")
    monkeypatch.setitem(sys.modules, "lazy", module)
    with pytest.raises(ValueError, match="needs the class Thing of lazy"):
        read_tree(forged(tmp_path / "t", {"module": "lazy:Thing", "fields": {}}), FORMAT)


def test_a_file_of_the_first_version_is_read(tmp_path):
    """As version 1 was laid down, byte for byte."""
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }"
    block = b"\x93NUMPY\x01\x00v\x00" + text.ljust(117) + b"\n" + np.array([1.5, -2.0], "<f8").tobytes()
    fields = {"w": {"array": "jax"}, "label": {"value": "point"}}
    path = forged(tmp_path / "old", {"module": f"{__name__}:Point", "fields": fields}, block)
    point = read_module(path, Point)
    assert VERSION == 1 and point.w.tolist() == [1.5, -2.0] and point.label == "point"
    again = write_module(tmp_path / "new", point).read_bytes()
    assert again.partition(b"\n")[2] == block and json.loads(again.partition(b"\n")[0])["tree"]["fields"] == fields

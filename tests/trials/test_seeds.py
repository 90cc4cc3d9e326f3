from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from isolation_helpers import Ran, run, write

from gradwise.trials.seeds import STRIDE, _Call, _moved

DRAWS = """
import json, random, sys
import numpy as np
import torch

random.seed(1)
np.random.seed(2)
torch.manual_seed(3)
values = {}
values["random"] = random.random()
values["numpy"] = float(np.random.rand())
values["torch"] = torch.rand(3).tolist()
values["default_rng"] = float(np.random.default_rng(4).random())
values["RandomState"] = float(np.random.RandomState(5).rand())
values["SeedSequence"] = float(np.random.default_rng(np.random.SeedSequence(6)).random())
values["PCG64"] = float(np.random.Generator(np.random.PCG64(7)).random())
values["Random"] = random.Random(8).random()
values["Generator"] = torch.rand(3, generator=torch.Generator().manual_seed(9)).tolist()
values["text"] = random.Random("ten").random()
values["array"] = float(np.random.RandomState(np.array([1, 2])).rand())
np.random.seed([3, 4])
values["numpy array"] = float(np.random.rand())
torch.default_generator.manual_seed(11)
values["default generator"] = torch.rand(3).tolist()
print(json.dumps(values))
"""
STATES = """
import hashlib, json, random, pickle
import numpy as np
import torch

def states():
    both = pickle.dumps((random.getstate(), np.random.get_state())) + torch.get_rng_state().numpy().tobytes()
    return hashlib.sha256(both).hexdigest()

random.seed(1); np.random.seed(2); torch.manual_seed(3)
print(json.dumps(states()))
"""
UNSEEDED = """
import json, random
import numpy as np
import torch

print(json.dumps([
    random.random(), float(np.random.rand()), torch.rand(3).tolist(), random.Random().random(),
    float(np.random.default_rng().random()), float(np.random.RandomState().rand()), torch.randperm(9).tolist(),
    float(np.random.Generator(np.random.PCG64()).random()), torch.randn(2, generator=torch.Generator()).tolist(),
]))
"""


KINDS = """
import copy, inspect, pickle, random
import numpy as np
import torch
from numpy.random import RandomState
from sklearn.utils import check_random_state
from torch.utils.data import DataLoader, random_split

state = np.random.RandomState(0)
assert isinstance(state, np.random.RandomState) and isinstance(state, RandomState)
assert isinstance(np.random.mtrand._rand, np.random.RandomState)
assert not isinstance(np.random.default_rng(0), np.random.RandomState)
assert check_random_state(state) is state
for made in (state, np.random.default_rng(1), np.random.SeedSequence(2), np.random.PCG64(3), random.Random(4)):
    assert isinstance(made, type(made))
    for other in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
        assert type(other) is type(made)
assert pickle.loads(pickle.dumps(np.random.RandomState)) is np.random.RandomState
for function in (np.random.seed, np.random.default_rng, torch.manual_seed, torch.cuda.manual_seed_all):
    assert pickle.loads(pickle.dumps(function)) is function
    assert function.__doc__ and function.__name__ in ("seed", "default_rng", "manual_seed", "manual_seed_all")
assert list(inspect.signature(torch.manual_seed).parameters) == ["seed"]
twins = [np.random.SeedSequence(7).spawn(2) for _ in range(2)]
assert [s.spawn_key for s in twins[0]] == [(0,), (1,)]
assert [s.generate_state(1)[0] for s in twins[0]] == [s.generate_state(1)[0] for s in twins[1]]

class Mine(np.random.RandomState):
    pass

assert isinstance(Mine(3), np.random.RandomState) and type(Mine(3)) is Mine
assert not isinstance(state, Mine) and issubclass(Mine, np.random.RandomState)

class Dice(random.Random):
    pass

assert type(Dice(3)) is Dice
generator = torch.Generator()
assert generator.manual_seed(3) is generator and isinstance(torch.default_generator, torch.Generator)
assert len(random_split(range(9), [4, 5], generator=generator)[0]) == 4
assert len(list(DataLoader(range(9), shuffle=True, generator=generator))) == 9
assert torch.equal(
    torch.rand(3, generator=copy.deepcopy(generator)),
    torch.rand(3, generator=pickle.loads(pickle.dumps(generator))),
)
for bad in (lambda: np.random.seed(-1), lambda: np.random.seed(2**32), lambda: np.random.default_rng(-5)):
    try:
        bad()
    except ValueError:
        continue
    raise AssertionError("a bad seed was taken")
for bad in (lambda: torch.manual_seed(2**70), lambda: torch.manual_seed("x"), lambda: torch.manual_seed()):
    try:
        bad()
    except (RuntimeError, OverflowError, ValueError, TypeError):
        continue
    raise AssertionError("a bad seed was taken")
print('"fine"')
"""
HELPFUL = """
import random
import numpy as np
import torch

def seed_everything(seed):
    random.seed(seed), np.random.seed(seed), torch.manual_seed(seed), torch.cuda.manual_seed_all(seed)

def split(n, seed):
    return [np.random.RandomState(seed).permutation(n).tolist(),
            np.random.default_rng(seed).permutation(n).tolist(),
            torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist(),
            random.Random(seed).sample(range(n), n)]
"""
LIBRARIES = """
import sys, json
sys.path.insert(0, "lib/site-packages")
import helpful, torch
from sklearn.model_selection import train_test_split
helpful.seed_everything(3)
print(json.dumps([train_test_split(range(50), random_state=0)[0] + helpful.split(20, 1), torch.rand(3).tolist()]))
"""
WORKERS = """
import json, random
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

class Noisy(Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, i):
        fresh = float(np.random.default_rng().random())
        return torch.tensor([random.random(), np.random.rand(), torch.rand(()).item(), fresh])

torch.manual_seed(0)
print(json.dumps(torch.cat(list(DataLoader(Noisy(), batch_size=2, num_workers=2))).tolist()))
"""
PLAIN_SEED = "import torch; torch.manual_seed({}); print(torch.rand(4).tolist())"
SCRIPTS = {
    "states": STATES,
    "kinds": KINDS,
    "libraries": LIBRARIES,
    "workers": WORKERS,
    "seed 5": PLAIN_SEED.format(5),
    "seed 5 and two strides": PLAIN_SEED.format(5 + 2 * STRIDE),
    "unseeded": UNSEEDED,
    "draws": DRAWS,
}
# All of them in one go, each in a process that has imported libraries and done nothing else: that takes longer than
# what they do. The last two run in the process that was started: its notes are heard, and Python seeds `random` afresh
# in one that is forked.
ALL = f"""
import os, sys, traceback
import torch
import sklearn.model_selection

scripts = {SCRIPTS!r}
for name in sys.argv[1:]:
    text = scripts[name]
    forks = name not in ("unseeded", "draws")
    forked = os.fork() if forks else 0
    if forked:
        if os.waitpid(forked, 0)[1]:
            sys.exit(name + " failed")
        continue
    try:
        exec(compile(text, name, "exec"), {{"__name__": "__main__"}})
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    sys.stdout.flush()
    if name != "unseeded":
        os._exit(0)
"""


class Together:
    """What the scripts print without gradwise and under orders; each is started once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write(folder / "lib" / "site-packages" / "helpful" / "__init__.py", HELPFUL)
        self.script = write(folder / "all.py", ALL)
        self.runs: dict[Any, tuple[dict[str, Any], Ran]] = {}

    def __call__(self, name: str, seed: int | str | None = "none of ours", again: bool = False) -> Any:
        return self.run(seed, again)[0][name]

    def run(self, seed: int | str | None, again: bool = False) -> tuple[dict[str, Any], Ran]:
        if (seed, again) not in self.runs:
            orders = {} if isinstance(seed, str) else {"seed": seed}
            names = [name for name in SCRIPTS if not (again or seed == 2) or "sklearn" not in SCRIPTS[name]]
            ran = run(self.script, self.folder, self.folder / "aside", names, **orders).ok()
            printed = [json.loads(line) for line in ran.stdout.splitlines()]
            self.runs[seed, again] = dict(zip(names, printed, strict=True)), ran
        return self.runs[seed, again]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Together:
    return Together(tmp_path_factory.mktemp("seeds"))


def test_no_offset_changes_nothing_and_notes_what_is_seeded(together: Together) -> None:
    assert together("draws", None) == together("draws")
    noted = {(d["library"], d["call"]): d["seed"] for d in together.run(None)[1].said("seeded")}
    assert noted["random", "seed"] == "1"
    assert noted["numpy", "random.seed"] == "2"
    assert noted["torch", "manual_seed"] == "3"
    assert noted["numpy", "random.default_rng"] == "4"
    assert noted["torch", "Generator.manual_seed"] == "9"


def test_offset_zero_is_the_run_itself(together: Together) -> None:
    assert together("draws", 0) == together("draws")


def test_offset_zero_leaves_the_very_states(together: Together) -> None:
    assert together("states", 0) == together("states")


def test_another_offset_moves_every_seed_and_repeats(together: Together) -> None:
    plain, one, again, two = (
        together("draws"),
        together("draws", 1),
        together("draws", 1, again=True),
        together("draws", 2),
    )
    assert one == again
    for name in plain:
        assert len({str(plain[name]), str(one[name]), str(two[name])}) == 3, name


def test_unseeded_scripts_repeat_and_differ_by_offset(together: Together) -> None:
    zero, again, one = together("unseeded", 0), together("unseeded", 0, again=True), together("unseeded", 1)
    assert zero == again
    # All but the last, which torch itself gives a constant seed.
    assert all(a != b for a, b in zip(zero[:-1], one[:-1], strict=True))


def test_unseeded_generators_differ_from_each_other(tmp_path: Path) -> None:
    text = "import numpy as np, json; print(json.dumps([float(np.random.default_rng().random()) for _ in range(9)]))"
    ran = run(write(tmp_path / "script.py", text), tmp_path, tmp_path / "aside", seed=0).ok()
    assert len(set(json.loads(ran.stdout))) == 9


def test_the_offset_is_the_stride_on_a_plain_seed(together: Together) -> None:
    assert together("seed 5 and two strides") == together("seed 5", 2)


def test_generators_keep_their_kind(together: Together) -> None:
    for orders in ((), (None,), (0,), (1,)):
        assert together("kinds", *orders) == "fine", orders


def test_splits_made_in_libraries_stay_and_global_seeds_in_libraries_move(together: Together) -> None:
    plain, zero, one = together("libraries"), together("libraries", 0), together("libraries", 1)
    assert plain == zero
    assert one[0] == plain[0]
    assert one[1] != plain[1]


def test_loader_workers_draw_as_without_gradwise(together: Together) -> None:
    plain = np.array(together("workers"))
    zero, again, one = (np.array(together("workers", *o)) for o in ((0,), (0, True), (1,)))
    np.testing.assert_array_equal(zero[:, :3], plain[:, :3])
    np.testing.assert_array_equal(zero, again)
    assert not np.intersect1d(zero, one).size
    assert len(np.unique(zero[:, 3])) == 8  # workers don't share what they draw unseeded


_NUMPY = _Call("numpy", "seed", below=1 << 32)
_TORCH = _Call("torch", "seed", low=-(1 << 63), below=1 << 64)


@given(st.integers(0, 2**32 - 1), st.integers(0, 10**6))
def test_moved_seeds_stay_valid(seed: int, k: int) -> None:
    np.random.RandomState(_moved(seed, k * STRIDE, _NUMPY))
    assert -(2**63) <= _moved(seed, k * STRIDE, _TORCH) < 2**64
    assert _moved(np.int64(seed), k * STRIDE, _NUMPY) == _moved(seed, k * STRIDE, _NUMPY)


@given(st.integers(0, 2**32 - 1), st.integers(1, 2**20))
def test_distinct_offsets_give_distinct_seeds(seed: int, k: int) -> None:
    assert _moved(seed, k * STRIDE, _NUMPY) != _moved(seed, 0, _NUMPY)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**40])
def test_invalid_seeds_are_left_to_fail(seed: int) -> None:
    assert _moved(seed, 5, _NUMPY) == seed

"""`gradwise lr` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.visits import Place, refused


def test_it_answers_for_the_script_as_it_is(tmp_path: Path) -> None:
    place = Place(tmp_path)
    before = (tmp_path / "train.py").read_bytes()
    done = place.run("lr", "--budget", "120", "--html", "lr.html", "--json", "lr.json", "train.py", "ok", "1e-9")
    assert done.returncode == 0, done.stderr
    assert "at most 120 optimizer steps in trials of train.py" in done.stderr
    assert "optimizer 0 (SGD): lr = " in done.stdout
    assert "the fall begins" in done.stdout
    assert "finally" not in done.stdout  # what the script prints in trials is not shown
    (answer,) = json.loads((tmp_path / "lr.json").read_text())["answers"]
    assert answer["steps"] <= 120
    low, high = answer["interval"]
    assert 1e-3 < low <= answer["lr"] <= high < 2
    assert len(answer["ramp"]["lr"]) == len(answer["ramp"]["loss"])
    assert "plotly" in (tmp_path / "lr.html").read_text().lower()
    assert (tmp_path / "train.py").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [".gradwise", "lr.html", "lr.json", "train.py"]
    (kept,) = json.loads(place.run("runs", "--json").stdout)
    assert (kept["script"].endswith("train.py"), kept["steps"], kept["status"]) == (True, 0, "finished")
    shown = json.loads(place.run("runs", "show", "--json", "last").stdout)
    trials = shown["trials"]
    assert len(trials) >= 2
    assert all(t["intervention"]["lr"] for t in trials)


EPOCHS = """
import torch
torch.manual_seed(0)
x = torch.randn(96, 5)
y = x @ torch.randn(5, 1) + 0.1 * torch.randn(96, 1)
model = torch.nn.Linear(5, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 32, shuffle=True)
for epoch in range(30):
    for inputs, targets in data:
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        error = torch.nn.functional.mse_loss(model(x), y).item()
    print(f"epoch {epoch} error {error:.5f}")
"""


def test_other_ways_to_ramp_and_to_judge(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.write("epochs.py", EPOCHS)
    options = ("--per", "epoch", "--metric", r"error ([0-9.]+)")
    done = place.run("lr", "-q", "--budget", "90", "--json", "lr.json", *options, "epochs.py")
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads((tmp_path / "lr.json").read_text())["answers"]
    assert answer["lr"] == pytest.approx(float(done.stdout), rel=1e-6)
    assert 3e-3 < answer["lr"] < 2  # at 1e-3 it crawls, from about 2 on it diverges
    rates = answer["ramp"]["lr"]
    assert len(set(rates)) <= len(rates) // 2  # constant within an epoch


def test_a_validation_loss_decides_and_says_so(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.write("epochs.py", EPOCHS)
    place.run("lr", "-q", "--budget", "90", "--json", "lr.json", "--store", "kept.db", "epochs.py")
    (answer,) = json.loads((tmp_path / "lr.json").read_text())["answers"]
    assert answer["metric"] == "validation loss"
    assert any("lowest validation loss" in words for words in answer["why"])
    assert all(len(run["validation"]) >= 2 for run in answer["runs"])
    assert (tmp_path / "kept.db").exists()


RIVALS = """
import torch
torch.manual_seed(0)
a, b = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
one, two = (torch.optim.SGD(m.parameters(), lr=0.01) for m in (a, b))
for step in range(2000):
    x = torch.randn(16, 2)
    one.zero_grad()
    (a(x) * b(x).detach()).mean().add((a(x) ** 2).mean()).backward()
    one.step()
    two.zero_grad()
    (-a(x).detach() * b(x) + b(x) ** 2).mean().backward()
    two.step()
"""
SEARCHES = """
import torch
x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
w = torch.zeros(3, requires_grad=True)
optimizer = torch.optim.LBFGS([w], line_search_fn="strong_wolfe")
def closure():
    optimizer.zero_grad()
    loss = ((x @ w - 1) ** 2).mean()
    loss.backward()
    return loss
for _ in range(100):
    optimizer.step(closure)
"""


@pytest.mark.parametrize(("script", "reason"), [(RIVALS, "in a GAN"), (SEARCHES, "line_search_fn='strong_wolfe'")])
def test_where_losses_do_not_tell_it_is_inconclusive(tmp_path: Path, script: str, reason: str) -> None:
    place = Place(tmp_path)
    place.write("odd.py", script)
    done = place.run("lr", "--budget", "90", "--which", "0", "--json", "lr.json", "odd.py")
    assert done.returncode == 1
    assert "inconclusive" in done.stdout
    (answer,) = json.loads((tmp_path / "lr.json").read_text())["answers"]
    assert answer["inconclusive"]
    assert answer["lr"] is None
    assert any(reason in words for words in answer["why"])


def test_where_it_cannot_be_tried_it_says_why(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.write("none.py", "import torch\nprint('no training')\n")
    done = place.run("lr", "none.py")
    assert done.returncode == 1
    assert "optimizer 0: no learning rate found" in done.stdout
    assert "took no optimizer step" in done.stdout or "took no step" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("lr", "nowhere.py"), "nowhere.py"),
        (("lr", "--rule", "magic", "train.py"), "there is no rule 'magic'"),
        (("lr", "--per", "often", "train.py"), "--per is a number of steps or the word epoch"),
        (("lr", "--metric", "(", "train.py"), "no regular expression"),
        (("lr", "--maximize", "train.py"), "--metric"),
    ],
)
def test_what_makes_no_sense_is_refused(capsys, monkeypatch, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    Place(tmp_path)
    assert said in refused(capsys, monkeypatch, tmp_path, *words)

"""Draw the figures of these pages from real recordings: `python docs/make_figures.py [NAME…]`.

Each figure is the loss of one run of an example, with the finding marked, as gradwise's own reports draw it.
`tests/test_docs.py` holds the pages to the commands named here.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from gradwise.diagnosis import diagnose
from gradwise.recording.store import Store
from gradwise.report.svg import loss_svg

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent / "examples"

# What is drawn: an example with its arguments, or the script that a page shows.
RUNS: dict[str, tuple[str, ...]] = {
    "healthy": ("digits_mlp.py",),
    "lr-too-high": ("digits_mlp.py", "--lr", "5", "--schedule", "none"),
    "lr-too-low": ("digits_mlp.py", "--lr", "0.0005", "--schedule", "none"),
    "late-lr-too-high": (
        "digits_mlp.py", "--lr", "0.06", "--batch-size", "16", "--schedule", "none", "--epochs", "20",
    ),
    "late-divergence": ("digits_mlp.py", "--schedule", "exp", "--gamma", "1.15"),
    "non-finite-loss": ("findings/non-finite-loss.md",),
}  # fmt: skip


def script_in(page: Path) -> str:
    """The Python script that a page shows, its first one."""
    found = re.search(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page} shows no script"
    return found[1]


def draw(name: str) -> str:
    """Run, diagnose and draw; the finding must be the one that the figure is named for."""
    script, *arguments = RUNS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = EXAMPLES / script
        if script.endswith(".md"):
            path = Path(folder, "train.py")
            path.write_text(script_in(HERE / script), "utf-8")
        database = str(Path(folder, "runs.db"))
        command = [sys.executable, "-m", "gradwise", "doctor", "--no-repair", "--quiet", "--store", database]
        subprocess.run([*command, str(path), *arguments], stdout=subprocess.DEVNULL, check=True, cwd=folder)
        with Store.open(database, create=False) as store:
            recording = store.load(store.resolve("last"))
    diagnosis = diagnose(recording)
    found = [f.id for f in (*diagnosis.findings, *diagnosis.suspicions)]
    assert found[:1] == [name] if name != "healthy" else not found, f"{name}: found {found or diagnosis.verdict}"
    first = next(iter((*diagnosis.findings, *diagnosis.suspicions)), None)
    marks = [(first.where.step or 0, first.id)] if first is not None else []
    said = " ".join((script, *arguments))
    svg = loss_svg(recording, first.source if first is not None else 0, marks)
    svg = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return re.sub(r"(<svg [^>]*>)", rf"\1<title>{said}</title>", svg, count=1) + "\n"


if __name__ == "__main__":
    for name in sys.argv[1:] or RUNS:
        (HERE / "figures" / f"{name}.svg").write_text(draw(name), "utf-8")
        print(name)

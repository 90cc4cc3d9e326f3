"""The pages of the docs about claims, made from stored runs alone, so that they can't say anything else.

In the folder: `results/X5.json` (the runs), `x5.md` and `figures/x5-….svg` made from it, `index.md` over all. A
README.md above it that has the markers `<!-- claims -->` and `<!-- end -->` gets the table of verdicts between them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradwise.lab import WHERE, find
from gradwise.lab.account import Account, of_runs, read

if TYPE_CHECKING:
    import plotly.graph_objects as go

# What draws and writes belongs to the reports, which this room doesn't know; the command brings them together.
Still = Callable[["go.Figure", str], str]
Markdown = Callable[[Mapping[str, Any], Mapping[str, str]], str]
Summary = Callable[[list[Mapping[str, Any]], str], str]

_MARKED = re.compile(r"(?<=<!-- claims -->\n).*?(?=<!-- end -->)", re.DOTALL)
_INDEX = """# Claims, rerun

What five documents on optimizing deep networks claim, put to the test on real data by `gradwise claims`. The verdict
follows from statistics over seeds, sentence by sentence; each page has the figures, and the runs that it was made from
lie in [results/](results/).

"""


def store(folder: Path, account: Account) -> Path:
    """Put an account's runs into the folder, in place of those of the same claim."""
    path = folder / "results" / f"{account.data['id']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"id": account.data["id"], "quick": account.data["quick"], "records": account.to_json()["records"]}
    # One run a line: small, and a diff shows which runs are new.
    records = ",\n".join(json.dumps(each, ensure_ascii=False, allow_nan=False) for each in data.pop("records"))
    head = json.dumps(data, ensure_ascii=False)[:-1]
    path.write_text(f'{head}, "records": [\n{records}\n]}}\n', "utf-8")
    return path


def write(folder: Path, markdown: Markdown, still: Still, summary: Summary) -> list[Path]:
    """Write all pages from the runs in the folder, and the README's table; what was written comes back."""
    found = {name: folder / "results" / f"{name}.json" for name in WHERE}
    written, claims = [], []
    for name, path in found.items():
        if not path.is_file():
            continue
        _, quick, runs = read(path)
        account = of_runs(find(name), quick, runs)
        pictures = {}
        for key, figure in account.figures.items():
            picture = folder / "figures" / f"{name.lower()}-{key}.svg"
            picture.parent.mkdir(exist_ok=True)
            picture.write_text(still(figure, account.data["figures"][key]), "utf-8")
            pictures[key] = f"figures/{picture.name}"
            written.append(picture)
        page = folder / f"{name.lower()}.md"
        page.write_text(markdown(account.data, pictures), "utf-8")
        written.append(page)
        claims.append(account.data)
    index = folder / "index.md"
    index.write_text(_INDEX + summary(claims, "") + "\n", "utf-8")
    return [*written, index, *_readme(folder, claims, summary)]


def _readme(folder: Path, claims: list[Mapping[str, Any]], summary: Summary) -> list[Path]:
    for above in folder.absolute().parents[:3]:
        readme = above / "README.md"
        text = readme.read_text("utf-8") if readme.is_file() else ""
        if _MARKED.search(text):
            inside = os.path.relpath(folder, above).replace(os.sep, "/")
            table = summary(claims, f"{inside}/") + "\n"
            readme.write_text(_MARKED.sub(table.replace("\\", r"\\"), text, count=1), "utf-8")
            return [readme]
    return []

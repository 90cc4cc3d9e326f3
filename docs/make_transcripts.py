"""Put real output into README and the tutorial: `python docs/make_transcripts.py` (some minutes).

Each block between `<!-- transcript: NAME -->` and `<!-- end -->` is replaced by what the commands print now.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SICK = ["examples/digits_mlp.py", "--lr", "5", "--schedule", "none"]


def gradwise(*words: str, store: str) -> tuple[list[str], list[str]]:
    """The lines that a command writes on standard output and on standard error, from the checkout's root."""
    environment = {**os.environ, "COLUMNS": "88", "GRADWISE_STORE": store, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "gradwise", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines(), done.stderr.splitlines()


def shortened(page: list[str]) -> list[str]:
    """The page up to and with its first remedy that was verified."""
    verified = next((k for k, line in enumerate(page) if line.startswith("  ✓") and " verified " in line), None)
    if verified is None:
        raise SystemExit("nothing was verified, so this is no page to show:\n" + "\n".join(page))
    end = next(k for k, line in enumerate(page[verified + 1 :], verified + 1) if re.match(r"  [✓✗·] |$|and ", line))
    return [*page[:end], "  …"]


def transcripts() -> dict[str, list[str]]:
    """Every block by its name."""
    with tempfile.TemporaryDirectory() as folder:
        store, report = str(Path(folder, "runs.db")), str(Path(folder, "report.json"))
        printed, page = gradwise("doctor", "--json", report, *SICK, store=store)
        after, said = gradwise("run", "--apply", report, *SICK, store=store)
        _, healthy = gradwise("doctor", SICK[0], store=store)
    page = [line.replace(report, "report.json") for line in page]
    said = [line.replace(report, "report.json") for line in said]
    return {
        "sick": [printed[0], "…", *printed[-2:]],
        "doctor": page,
        "doctor, shortened": shortened(page),
        "apply": [*said[:1], *after[:2], "…", *after[-2:]],
        "healthy": healthy,
    }


def main() -> None:
    """Renew the blocks of every page that has some."""
    blocks = transcripts()
    for page in (ROOT / "README.md", HERE / "tutorials" / "first-diagnosis.md"):

        def renewed(found: re.Match[str]) -> str:
            lines = "\n".join(line.rstrip() for line in blocks[found[1]]).strip("\n")
            return f"<!-- transcript: {found[1]} -->\n```text\n{lines}\n```\n<!-- end -->"

        text = page.read_text("utf-8")
        page.write_text(re.sub(r"<!-- transcript: (.*?) -->.*?<!-- end -->", renewed, text, flags=re.DOTALL), "utf-8")


if __name__ == "__main__":
    main()

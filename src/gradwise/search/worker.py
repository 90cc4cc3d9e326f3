"""A process that makes runs for a search: `python -m gradwise.search.worker`, spoken to in lines of JSON.

In come the task, then jobs (`{"job": …}`); out go values (`{"value": [k, value]}`), each answered by whether to end the
run (`{"end": false}`), and results (`{"result": …}`). It ends when nobody speaks to it any more.
"""

from __future__ import annotations

import json
import os
import select
import sys
from typing import IO, Any

from gradwise.search.jobs import Job, Result
from gradwise.search.scripted import Scripted, Task
from gradwise.trials.process import Interrupted
from gradwise.trials.sandbox import Workspace


class Line:
    """Lines of JSON over two pipes.

    Args:
        into: descriptor to read from.
        out: where to write.
    """

    def __init__(self, into: int, out: IO[bytes]) -> None:
        self._into, self._out, self._rest = into, out, b""

    def say(self, what: dict[str, Any]) -> None:
        """Write a line."""
        self._out.write(json.dumps(what).encode() + b"\n")
        self._out.flush()

    def hear(self, wait: bool) -> dict[str, Any] | None:
        """The next line; None where there is none yet and `wait` is off.

        Raises:
            EOFError: the other side has closed.
        """
        while b"\n" not in self._rest:
            if not wait and not select.select([self._into], [], [], 0)[0]:
                return None
            more = os.read(self._into, 1 << 16)
            if not more:
                raise EOFError
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        heard: dict[str, Any] = json.loads(line)
        return heard


def main() -> None:
    """Work until nobody speaks to us any more."""
    # What anything else prints here must not get between the lines.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    line = Line(0, out)
    try:
        first = line.hear(wait=True)
        assert first is not None
        task = Task.from_json(first["task"])
        target = task.target
        with Workspace.before(target.cwd, None if target.module else target.script, target.argv) as workspace:
            workspace.after()
            scripted = Scripted(task, workspace)
            while True:
                heard = line.hear(wait=True)
                if heard is not None and "job" in heard:
                    _work(scripted, Job(**heard["job"]), line)
    except (EOFError, BrokenPipeError, Interrupted, KeyboardInterrupt):
        sys.exit(0)


def _work(scripted: Scripted, job: Job, line: Line) -> None:
    def tick() -> None:
        line.hear(wait=False)  # nothing is said meanwhile; that nobody is there any more is heard

    def on_value(k: int, value: float) -> bool:
        line.say({"value": [k, value]})
        answer = line.hear(wait=True)
        return bool(answer and answer.get("end"))

    scripted.on_tick = tick
    try:
        result = scripted(job, on_value)
    except (EOFError, BrokenPipeError, Interrupted):
        raise
    except Exception as error:
        result = Result(None, problem=f"gradwise could not run it ({error!r})", lost=True)
    line.say({"result": result.to_json()})


if __name__ == "__main__":
    main()

"""A process that makes runs for a search: `python -m gradwise.search.worker`, spoken to in lines of JSON.

In come what to run (`{"work": …}`), then jobs (`{"job": …}`); out go `{"ready": true}`, values
(`{"value": [k, value]}`), each answered by whether to end the run (`{"end": false}`), and results (`{"result": …}`). It
ends when nobody speaks to it any more, and at once when told to terminate or when its driver dies.
"""

from __future__ import annotations

import json
import os
import sys
from typing import IO, Any

from gradwise.search.functions import Function
from gradwise.search.jobs import Evaluate, Job, Result, Work
from gradwise.search.pending import leave
from gradwise.search.scripted import Task
from gradwise.trials.process import Interrupted, die_with


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

    @property
    def more(self) -> bool:
        """Whether a line has come that was not heard yet."""
        return b"\n" in self._rest

    def hear(self) -> dict[str, Any]:
        """The next line.

        Raises:
            EOFError: the other side has closed.
        """
        while not self.more:
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
        first = line.hear()
        die_with(int(first["driver"]))
        kind: type[Task | Function] = Task if first["kind"] == Task.KIND else Function
        work: Work = kind.from_json(first["work"])
        with work.begun() as evaluate:
            line.say({"ready": True})
            while True:
                job = Job(**line.hear()["job"])
                result = done(evaluate, job, line)
                leave(result, job.keep)
                line.say({"result": result.to_json()})
    except (EOFError, BrokenPipeError, Interrupted, KeyboardInterrupt):
        sys.exit(0)
    except Exception as error:
        line.say({"failed": f"{type(error).__name__}: {error}"[:500]})
        sys.exit(1)


def done(evaluate: Evaluate, job: Job, line: Line) -> Result:
    """Make a run, whatever happens."""

    def on_value(k: int, value: float) -> bool:
        line.say({"value": [k, value]})
        return bool(line.hear().get("end"))

    try:
        return evaluate(job, on_value)
    except (EOFError, BrokenPipeError, Interrupted):
        raise
    except Exception as error:
        return Result(None, problem=f"gradwise could not run it ({error!r})", lost=True)


if __name__ == "__main__":
    main()

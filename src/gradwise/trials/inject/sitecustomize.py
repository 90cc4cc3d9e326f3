"""Python imports this at start-up because its folder is first in PYTHONPATH: starts gradwise, then leaves no trace.

The script that follows is run by Python itself, so `__main__`, `sys.argv`, `sys.path[0]`, tracebacks and the exit
status are those of a plain run. A `sitecustomize` of the user's own is imported afterwards as usual.
"""

import os
import sys


def _start() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [p for p in sys.path if os.path.abspath(p) != here]
    sys.path_importer_cache.pop(here, None)
    before = os.environ.pop("GRADWISE_PYTHONPATH", None)
    os.environ.pop("PYTHONPATH", None)
    if before is not None:
        os.environ["PYTHONPATH"] = before
    settings = os.environ.pop("GRADWISE_CHILD", None)
    ours = sys.modules.pop("sitecustomize")
    if settings:
        try:
            from gradwise.trials.child import start

            start(settings)
        except Exception as error:  # nothing of ours may stop the script
            with open(settings + ".error", "w", encoding="utf-8") as file:
                file.write(repr(error))
    try:
        __import__("sitecustomize")
    except ImportError:
        # The import system wants it back; `gradwise.trials.child` takes it away once this import is over.
        sys.modules["sitecustomize"] = ours


_start()

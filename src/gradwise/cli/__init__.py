"""The command line: one file per command, and nothing heavy imported before a command needs it."""

from __future__ import annotations

from typing import Annotated

import typer

from gradwise.cli import claims, doctor, lr, race, report, run, runs, tune
from gradwise.cli.common import PASSED_ON, speaking_plainly

app = typer.Typer(
    name="gradwise",
    help="Find out why a PyTorch model isn't training, and prove the fix on your own script, unchanged.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.command("doctor", context_settings=PASSED_ON)(doctor.doctor)
app.command("lr", context_settings=PASSED_ON)(lr.lr)
app.command("tune", context_settings=PASSED_ON)(tune.tune)
app.command("run", context_settings=PASSED_ON)(run.run)
app.add_typer(runs.app, name="runs")
app.command("claims")(claims.claims)
app.command("race")(race.race)
app.command("report")(report.report)


def _version(wanted: bool) -> None:
    if wanted:
        from gradwise import __version__

        typer.echo(f"gradwise {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


def main() -> None:
    """The `gradwise` command."""
    with speaking_plainly():
        app()

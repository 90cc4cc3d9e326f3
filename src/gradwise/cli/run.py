"""`gradwise run`: run a script at full length with a fix."""

from __future__ import annotations

from gradwise.cli.common import RestArgument, ScriptArgument


def run(script: ScriptArgument, args: RestArgument = None) -> None:
    """Run SCRIPT with a fix."""

"""Running a script: under watch, or as a trial with an intervention, a seed offset and a budget, out of harm's way."""

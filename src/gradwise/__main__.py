"""`python -m gradwise` is `gradwise`."""

from gradwise.cli import main

main()

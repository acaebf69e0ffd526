"""`python -m anyvirt`: the command line."""

from anyvirt.cli import main

main()

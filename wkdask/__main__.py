"""``python -m wkdask`` is the ``wkdask`` command."""

from wkdask.cli import main

main(prog_name="wkdask")

"""Commands run in this process, with what they print on stdout and on stderr apart."""

import inspect

from click.testing import CliRunner


def runner():
    """Return click's runner; before click 8.2 it mixes the two streams unless it is told not to."""
    mixes = "mix_stderr" in inspect.signature(CliRunner).parameters
    return CliRunner(mix_stderr=False) if mixes else CliRunner()

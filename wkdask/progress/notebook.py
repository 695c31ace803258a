"""A bar in the output of a notebook's cell, as HTML that is replaced from time to time.

Neither rich, which shows nothing in a notebook without ipywidgets, nor a widget, which is not saved with the
notebook: what is shown here needs no extension, and is there when the notebook is opened again.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from wkdask.progress.tally import Tally

__all__ = ["NotebookBar", "bar_html"]

_RUNNING, _DONE, _FAILED = "#d98b1d", "#3c9a5f", "#c8402f"
"""Colours that are seen on light and on dark pages."""


class NotebookBar:
    """Shows lines of text below a bar; each takes the place of the one before."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._tally: Tally | None = None

    def begin(self, tally: Tally) -> None:
        """Let the next line be that of a new bar.

        Parameters
        ----------
        tally
            Of the job that begins.
        """
        self._handle, self._tally = None, tally

    def __call__(self, line: str) -> None:
        """Show a line."""
        from IPython.display import display

        html = f"<code>{escape(line)}</code>" if self._tally is None else bar_html(self._tally, line)
        bundle = {"text/plain": line, "text/html": html}
        if self._handle is None:
            show: Callable[..., Any] = display  # IPython gives it no types
            self._handle = show(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def bar_html(tally: Tally, line: str) -> str:
    """Return a bar above a line of text.

    Parameters
    ----------
    tally
        How far the job is.
    line
        The text.
    """
    ended, units = tally.units + tally.failed, max(tally.job.units, 1)
    percent = min(100, 100 * ended // units)
    colour = _FAILED if tally.failed else _DONE if ended >= units else _RUNNING
    return (
        "<div style='max-width:56em'>"
        f"<div role='progressbar' aria-valuenow='{percent}' aria-valuemax='100' "
        "style='height:8px;margin:4px 0;border-radius:4px;background:rgba(128,128,128,.25)'>"
        f"<div style='height:8px;border-radius:4px;width:{percent}%;background:{colour}'></div></div>"
        f"<code>{escape(line)}</code></div>"
    )

"""``wkdask view``: a dataset in the browser."""

from __future__ import annotations

import os
import socket

import click

from wkdask.cli.functions import function_name, function_of
from wkdask.cli.options import shared_command
from wkdask.cli.run import Run

__all__ = ["command"]


@shared_command("view", "layers", "mags", "bbox")
@click.argument("dataset", type=click.Path())
@click.option(
    "--expr", metavar="MODULE:FUNCTION",
    help="Show this function of each layer too: it takes and returns a lazy dask array (c, x, y, z).",
)  # fmt: skip
@click.option(
    "--port", type=click.IntRange(1, 65535), metavar="N", help="The port on 127.0.0.1; a free one by default."
)
@click.option(
    "--no-browser", is_flag=True, help="Print the address, and how to reach it from another machine."
)
def command(run: Run, dataset: str, expr: str | None, port: int | None, no_browser: bool) -> None:
    """Show a dataset in the browser, in neuroglancer, until Ctrl-C.

    The browser gets the chunks that are on the screen, from this machine: nothing is copied or converted. The
    address has a token; requests without it are refused. Needs neuroglancer: pip install 'wkdask[view]'.

    MODULE is found in the working folder first. Its function is computed for what is on the screen, here or on the
    workers of a scheduler; coarser mags show the function of coarser mags, which is approximate.

    \b
    Example:
      wkdask view dataset
      wkdask view dataset --layer color --expr filters:sharpen
      wkdask view dataset --no-browser --port 8765
    """
    import wkdask
    from wkdask.viewer.viewer import view

    opened = wkdask.Dataset(dataset)
    layers = [opened.get_layer(name) for name in run.layers or opened.layers]
    shown: list[object] = [opened] if not run.layers else [*layers]
    if expr is not None:
        module, name = function_name(expr, "'--expr'")
        function = function_of(module, name)
        images = [layer for layer in layers if run.layers or layer.category == "color"]
        shown += [
            (f"{name} of {layer.name}" if len(images) > 1 else name, function, layer) for layer in images
        ]
    with run.connected() as client:
        viewer = view(
            *shown, mag=run.mags or None, bounding_box=run.bbox, client=client, port=port or 0, new=True,
            open_browser=not no_browser,
        )  # fmt: skip
        with viewer:
            for note in viewer.notes:
                run.note(f"Note: {note}")
            run.say(viewer.url)
            if no_browser:
                there = f"ssh -N -L {viewer.port}:127.0.0.1:{viewer.port} {socket.gethostname()}"
                run.note(f"From another machine: {there}  and open the address above there")
            run.answer({"command": "view", "url": viewer.url, "layers": viewer.layers, "pid": os.getpid()})
            run.note("Ctrl-C ends it.")
            try:
                viewer.wait()
            except KeyboardInterrupt:
                run.note("")

"""Images (TIFF, PNG, JPEG) as a layer.

:mod:`~wkdask.convert.images.paths` finds the files, :mod:`~wkdask.convert.images.selection` opens them as a
:mod:`~wkdask.convert.images.stack`, :mod:`~wkdask.convert.images.convert` writes the stack through one job.
"""

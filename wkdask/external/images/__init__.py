"""Images (TIFF, PNG, JPEG): files, stacks of them, and the job that writes a stack.

:mod:`~wkdask.external.images.paths` finds the files, :mod:`~wkdask.external.images.selection` opens them as a
:mod:`~wkdask.external.images.stack`, :mod:`~wkdask.external.images.plan` cuts it into slabs, and
:mod:`~wkdask.external.images.job` writes it. :mod:`~wkdask.external.images.from_images` does this under
webknossos' names.
"""

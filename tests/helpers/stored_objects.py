"""Datasets in object stores, put there file by file as other programs do."""

import os
from pathlib import Path

import obstore

from wkdask.objects.metadata import forget_metadata
from wkdask.objects.stores import store_of
from wkdask.objects.urls import Address


def put(url, data):
    """Put bytes to a URL."""
    address = Address.of(url)
    obstore.put(store_of(address), address.key, data)
    forget_metadata(url)


def delete(url):
    """Delete an object."""
    address = Address.of(url)
    obstore.delete(store_of(address), address.key)
    forget_metadata(url)


def put_folder(folder, url):
    """Put all files of a folder below a URL, but no private ones."""
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != ".wkdask"]
        for name in files:
            path = Path(root, name)
            put(f"{url}/{path.relative_to(folder).as_posix()}", path.read_bytes())

"""URLs of object stores: which object, in which bucket, at which endpoint."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from wkdask.errors import InvalidValueError

__all__ = ["SCHEMES", "Address", "checked_url", "is_url", "parent_of", "url_name"]

SCHEMES = ("s3", "gs", "az", "http", "https", "memory")
"""The kinds of stores that are read."""

_START = re.compile(rf"({'|'.join(SCHEMES)})://")
_LOCAL = re.compile(r"(localhost|127(\.[0-9]+){3}|\[::1\])(:[0-9]+)?")


def is_url(path: object) -> bool:
    """Return whether a path is a URL of an object store.

    Examples
    --------
    >>> is_url("s3://bucket/dataset"), is_url("data/s3:/x"), is_url("ftp://host/x")
    (True, False, False)
    """
    return isinstance(path, str) and _START.match(path) is not None


def checked_url(url: str) -> str:
    """Return a URL in its normal form: no empty or dotted parts, no slash at the end.

    Raises
    ------
    InvalidValueError
        If it holds a user name, a password, a query or a fragment, or names no bucket or host. The message does not
        repeat them.

    Examples
    --------
    >>> checked_url("s3://bucket//dataset/./color/")
    's3://bucket/dataset/color'
    """
    try:
        url.encode("utf-8")
        parts = urlsplit(url)
        host = parts.netloc
        _ = parts.port  # a port that is none raises
    except (UnicodeEncodeError, ValueError) as error:
        raise InvalidValueError(f"a URL must be valid: {error}") from None
    if "@" in host:
        raise InvalidValueError(
            f"a {parts.scheme} URL cannot hold a user name or a password; credentials come from the environment"
        )
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise InvalidValueError(
            f"the URL {parts.scheme}://{host}{parts.path} goes on with a query or a fragment, which cannot be part "
            f"of a path; of a signed URL the files below it cannot be read"
        )
    if not host or "\0" in url:
        raise InvalidValueError(f"the URL {url!r} names no bucket or host")
    path = posixpath.normpath(f"/{parts.path}").lstrip("/")
    return f"{parts.scheme}://{host}" + (f"/{path}" if path else "")


def parent_of(url: str) -> str:
    """Return the URL of the folder of an object.

    Examples
    --------
    >>> parent_of("s3://bucket/dataset/color")
    's3://bucket/dataset'
    """
    above, _, _ = url.rpartition("/")
    return above if "://" in above and not above.endswith("//") else url


def url_name(url: str) -> str:
    """Return the last part of a URL.

    Examples
    --------
    >>> url_name("s3://bucket/dataset")
    'dataset'
    """
    return url.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Address:
    """Where an object lies."""

    scheme: str
    """One of `SCHEMES`."""
    endpoint: str | None
    """The URL of the server, where it is not that of the provider."""
    bucket: str
    """The bucket or container; of http and memory the host."""
    key: str
    """The object's name in it."""

    @classmethod
    def of(cls, url: str) -> Address:
        """Return the parts of a URL in its normal form.

        The host of ``s3://host/bucket/key`` is an endpoint if it has a dot or a port, as WEBKNOSSOS writes it; a
        bucket whose name has a dot is reached through the endpoint of its provider.

        Examples
        --------
        >>> Address.of("s3://store.example.com/bucket/dataset")
        Address(scheme='s3', endpoint='https://store.example.com', bucket='bucket', key='dataset')
        >>> Address.of("s3://bucket/dataset").bucket
        'bucket'
        """
        scheme, _, rest = url.partition("://")
        host, _, key = rest.partition("/")
        if scheme in ("http", "https"):
            return cls(scheme, f"{scheme}://{host}", host, unquote(key))
        if scheme != "s3" or not (_LOCAL.fullmatch(host) or "." in host or ":" in host):
            return cls(scheme, None, host, key)
        bucket, _, key = key.partition("/")
        if not bucket:
            raise InvalidValueError(f"the URL {url} names the endpoint {host}, but no bucket after it")
        protocol = "http" if _LOCAL.fullmatch(host) else "https"
        return cls(scheme, f"{protocol}://{host}", bucket, key)

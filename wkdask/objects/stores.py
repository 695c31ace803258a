"""The clients of object stores: one per bucket and process, with the credentials of the environment.

Credentials stay in this process: they are in no URL, no manifest, no message, and are not sent to workers, which
read their own environment::

    s3    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL, AWS_PROFILE and
          ~/.aws; of one endpoint or bucket AWS_ACCESS_KEY_ID__STORE_EXAMPLE_COM__BUCKET, as webknossos reads them
    gs    GOOGLE_APPLICATION_CREDENTIALS, or the login of gcloud
    az    AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN

Without any of them requests are anonymous, as public buckets take them.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from wkdask import settings
from wkdask.errors import InvalidValueError, StoreError
from wkdask.objects.urls import SCHEMES, Address, checked_url

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = ["forget_store", "plain_place", "store_of", "take_options"]

_KEYS = {
    "AWS_ACCESS_KEY_ID": "access_key_id",
    "AWS_SECRET_ACCESS_KEY": "secret_access_key",
    "AWS_SESSION_TOKEN": "session_token",
    "AWS_REGION": "region",
    "AWS_DEFAULT_REGION": "region",
}
"""Variables of the environment, and what obstore calls their values."""

_OF_A_KEY = ("access_key_id", "secret_access_key", "session_token", "skip_signature")
"""What belongs together: all of it is given, or all of it found."""

_NAMES = {
    "key": "access_key_id",
    "secret": "secret_access_key",
    "token": "session_token",
    "anon": "skip_signature",
    "endpoint_url": "endpoint",
    "region_name": "region",
}
"""Words of s3fs, and so of UPath, and what obstore calls their values."""

_OF_SCHEME = {"gs": {"token": "service_account", "anon": "skip_signature"}, "az": {"anon": "skip_signature"}}
"""The same of gcsfs and adlfs."""

_PROTOCOLS = {**{scheme: scheme for scheme in SCHEMES}, "s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
"""What UPath calls the kinds of stores."""

_Place = tuple[str, str | None, str]
_lock = threading.Lock()
_stores: dict[_Place, ObjectStore] = {}
_given: dict[_Place, dict[str, Any]] = {}


_forked = False
"""Whether this process was forked from one that had used a store: the threads of its client are not here, and every
call, also of a new client, would wait for them for ever."""


def _note_fork() -> None:
    """Note in a forked child that no store can be used in it, if its parent has used one."""
    global _forked, _lock
    _lock = threading.Lock()
    _forked = _forked or any(place[0] != "memory" for place in _stores)


os.register_at_fork(after_in_child=_note_fork)


def store_of(address: Address) -> ObjectStore:
    """Return the client of a bucket, the same one for all threads of this process.

    Raises
    ------
    StoreError
        If this process was forked from one that had used a store.
    """
    if _forked and address.scheme != "memory":
        raise StoreError(
            f"{address.scheme}://{address.bucket} cannot be read in this process: it was forked from one that had "
            f"read an object store before, whose connections cannot be shared; start processes with the method "
            f"'spawn' or 'forkserver' (multiprocessing.get_context, multiprocessing_context= of a DataLoader)"
        )
    place = (address.scheme, address.endpoint, address.bucket)
    store = _stores.get(place)
    if store is None:
        with _lock:
            store = _stores.get(place)
            if store is None:
                store = _stores[place] = _made(address, _given.get(place, {}))
    return store


def forget_store(address: Address) -> None:
    """Look for the credentials of a bucket anew when it is used next: those that were found have been refused."""
    if address.scheme != "memory":
        with _lock:
            _stores.pop((address.scheme, address.endpoint, address.bucket), None)


def take_options(url: str, options: Mapping[str, Any]) -> None:
    """Take the options of a bucket from the caller instead of the environment, in this process.

    Parameters
    ----------
    url
        The bucket, or an object in it.
    options
        In the words of s3fs (``key``, ``secret``, ``token``, ``anon``, ``endpoint_url``, ``client_kwargs``) or of
        obstore (``access_key_id``, ``region``, …).

    Raises
    ------
    InvalidValueError
        If it is a folder, or a kind of store without options, or there is no such option. The message does not
        repeat values.

    Examples
    --------
    >>> take_options("s3://bucket/dataset", {"anon": True})
    """
    if not options:
        return
    scheme = url.partition("://")[0]
    if scheme not in ("s3", "gs", "az"):
        raise InvalidValueError(f"storage_options= belong to URLs of s3, gs and az; {url} takes none")
    address = Address.of(url)
    flat = {**options}
    for name in ("client_kwargs", "config_kwargs"):
        inner = flat.pop(name, None)
        if isinstance(inner, Mapping):
            flat.update(inner)
    place = (address.scheme, address.endpoint, address.bucket)
    names = _OF_SCHEME.get(address.scheme, _NAMES)
    found = {names.get(name, name): value for name, value in flat.items() if value is not None}
    try:
        store = _made(address, found)
    except Exception as error:
        given = ", ".join(sorted(map(str, flat)))
        raise InvalidValueError(
            f"storage_options= of {address.scheme}://{address.bucket} are not understood ({type(error).__name__}); "
            f"their names are {given}"
        ) from None
    with _lock:
        _given[place], _stores[place] = found, store


def plain_place(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return the URL of a UPath, whose storage_options are taken; any other path as it is.

    Raises
    ------
    InvalidValueError
        If it is of a kind of store that is not read, or its options are not understood.
    """
    protocol = getattr(path, "protocol", None)
    if not isinstance(protocol, str) or not hasattr(path, "storage_options"):
        return path
    if protocol in ("", "file", "local"):
        return str(path.path)  # type: ignore[union-attr]
    scheme = _PROTOCOLS.get(protocol)
    if scheme is None:
        raise InvalidValueError(
            f"a UPath of {protocol} is not read; known are {', '.join(sorted(_PROTOCOLS))}"
        )
    url = checked_url(f"{scheme}://{str(path).partition('://')[2]}")
    take_options(url, path.storage_options)
    return url


def _made(address: Address, given: Mapping[str, Any]) -> ObjectStore:
    """Make the client of a bucket."""
    from obstore.store import AzureStore, GCSStore, HTTPStore, MemoryStore, S3Store

    seconds = float(settings.get("store-timeout"))
    common: dict[str, Any] = {
        # A request that fails is repeated here by `reading`, which knows what is repeated and says so.
        "retry_config": {"max_retries": 0, "retry_timeout": timedelta(seconds=seconds)},
    }
    client: Any = {
        "timeout": timedelta(seconds=10 * seconds),  # of a whole request: a cube may be large, the line slow
        "read_timeout": timedelta(seconds=seconds),
        "connect_timeout": timedelta(seconds=min(10.0, seconds)),
    }
    if address.scheme == "memory":
        return MemoryStore()
    if address.scheme in ("http", "https"):
        client["allow_http"] = address.scheme == "http"
        return HTTPStore(str(address.endpoint), client_options=client, **common)
    if address.scheme == "gs":
        anonymous: Any = {} if given or _has_google_login() else {"skip_signature": True}
        return GCSStore(address.bucket, client_options=client, **common, **anonymous, **given)
    if address.scheme == "az":
        anonymous = {} if given or _has_any("AZURE_") else {"skip_signature": True}
        return AzureStore(address.bucket, client_options=client, **common, **anonymous, **given)
    options = _s3_options(address)
    if "access_key_id" in given:  # then it is signed, also where the environment has no key
        options = {name: value for name, value in options.items() if name not in _OF_A_KEY}
    options.update(given)
    client["allow_http"] = str(options.get("endpoint", "")).startswith("http://")
    return S3Store(address.bucket, client_options=client, **common, **options)


def _s3_options(address: Address) -> dict[str, Any]:
    """Return what the environment says of a bucket of S3."""
    options: dict[str, Any] = {}
    options.update(_profile())
    for variable, name in _KEYS.items():
        if value := os.environ.get(variable):
            options[name] = value
    endpoint = address.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        options["endpoint"] = endpoint
    if address.endpoint:
        options.update(_of_endpoint(address))
    others = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    if "access_key_id" not in options and not any(os.environ.get(name) for name in others):
        # Without this the client would ask the metadata service of a machine at Amazon, and wait for it elsewhere.
        options["skip_signature"] = os.environ.get("AWS_SKIP_SIGNATURE", "true").lower() != "false"
    options.setdefault("region", "us-east-1")
    return options


def _of_endpoint(address: Address) -> dict[str, str]:
    """Return the credentials of an endpoint, or of a bucket or a folder there: the longest name counts.

    ``AWS_ACCESS_KEY_ID__STORE_EXAMPLE_COM__BUCKET`` is that of ``s3://store.example.com/bucket/…``; see
    webknossos-libs, pull request 1475.
    """
    host = (address.endpoint or "").partition("://")[2]
    parts = [re.sub(r"[^A-Za-z0-9]", "_", part).upper() for part in (host, address.bucket)]
    found: dict[str, str] = {}
    for count in range(1, len(parts) + 1):
        suffix = "__".join(parts[:count])
        for variable, name in _KEYS.items():
            if value := os.environ.get(f"{variable}__{suffix}"):
                found[name] = value
    return found


def _profile() -> dict[str, str]:
    """Return the credentials of the files that Amazon's tools write: of AWS_PROFILE, or of the default profile."""
    import configparser

    home = os.path.expanduser("~/.aws")
    profile = os.environ.get("AWS_PROFILE") or "default"
    found: dict[str, str] = {}
    for variable, file, section in (
        ("AWS_CONFIG_FILE", "config", profile if profile == "default" else f"profile {profile}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", profile),
    ):
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(os.environ.get(variable) or os.path.join(home, file), encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):  # its content is not for a message
            continue
        if not parser.has_section(section):
            continue
        for key, name in (
            ("aws_access_key_id", "access_key_id"),
            ("aws_secret_access_key", "secret_access_key"),
            ("aws_session_token", "session_token"),
            ("region", "region"),
            ("endpoint_url", "endpoint"),
        ):
            if value := parser.get(section, key, fallback=None):
                found[name] = value
    return found


def _has_google_login() -> bool:
    """Return whether Google's tools have left a login."""
    file = os.path.expanduser("~/.config/gcloud/application_default_credentials.json")
    return _has_any("GOOGLE_") or os.path.exists(file)


def _has_any(prefix: str) -> bool:
    """Return whether the environment has a variable that begins so."""
    return any(name.startswith(prefix) for name in os.environ)

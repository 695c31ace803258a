"""Requests over http, answered as (status, headers, bytes) whatever the status."""

import urllib.error
import urllib.request


def get(url, data=None, **headers):
    """Return what an address answers; with `data` by POST."""
    asked = urllib.request.Request(url, data=data, headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()

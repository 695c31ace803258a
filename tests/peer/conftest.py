"""What the comparisons share: one process of webknossos."""

from peer_process import peer

__all__ = ["peer"]

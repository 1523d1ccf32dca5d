"""Seeds out of names."""

from __future__ import annotations

import hashlib


def seed_of(name: str) -> int:
    """A 32-bit seed, the same for the same name in every process and on every machine, unlike ``hash``."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big")

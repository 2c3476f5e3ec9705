"""Sealed frames: AES-256-GCM under keys that rotate, bound to what an entry is and where it belongs.

A `Keyring` seals a whole frame into another one that shows only what a reader needs to find the key and a tier to
serve the entry, and opens it again, or refuses with a reason. proto-docs/encryption.md specifies it, and says what a
hostile store can and cannot do.

>>> import framecache.crypto, framecache.msgpack
>>> keyring = framecache.crypto.Keyring(bytes(range(32)))
>>> (name,) = keyring.names("users:42")
>>> sealed = keyring.seal(framecache.msgpack.encode({"mail": "jane@example.org"}), name)
>>> framecache.msgpack.decode(keyring.open(sealed, name))
{'mail': 'jane@example.org'}
>>> (other,) = keyring.names("users:43")
>>> keyring.open(sealed, other)
Traceback (most recent call last):
framecache.EntryRefused: sealed entry refused (wrong_entry): expected the name that was asked for, found an entry of \
another name
"""

from framecache._framecache import EntryRefused, Keyring, MasterKey, derive_domain_key, key_fingerprint

__all__ = ["EntryRefused", "Keyring", "MasterKey", "derive_domain_key", "key_fingerprint"]

"""Oblivious key-value store: a vector that gives a key's value by a sum of few of its entries. README.md."""

from protocols.okvs.shape import Shape
from protocols.okvs.store import Located, decode, encode, hashed, locate

__all__ = ["Located", "Shape", "decode", "encode", "hashed", "locate"]

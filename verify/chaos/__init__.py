"""Proof by breaking: workers and servers are killed, frozen, emptied; an oracle judges what came out."""

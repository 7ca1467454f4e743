"""Proof by breaking: workers and servers are killed, frozen and emptied, and an oracle judges what came out."""

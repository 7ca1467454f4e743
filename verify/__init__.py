"""Proofs made from outside: ledger and demo read topics, never the scorer's code."""

"""Realtime: what the server tells, complete and in order per channel, whatever happens to the connection.

One thread reads; the protocols themselves are in `core.protocols`, and what a handler does never stops the reading.
"""

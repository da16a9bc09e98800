"""The realtime protocols as state machines without sockets, threads or clocks.

`outputs` is the seam: what such a machine is asked and what it tells. `states` is the table of a connection's states.
`centrifugo` (with the other `centrifugo_*` and `renewals`) and `plain_json` are the machines; both read their frames by
`decode`. Bytes and the time go in as arguments, decisions come out as values; so each rule of a protocol can be tested
by itself, and replayed against what a real server was seen to say.
"""

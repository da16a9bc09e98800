"""What `chatsdk doctor` looks at, from the inside out: this machine, the way to the server, the server.

    findings    what a check says: ok, warn, fail, or skipped because of an earlier one
    verdicts    pure: from what was seen to a finding
    local       settings, state directory, plugins
    way         proxy, DNS, TCP, TLS
    server      captive portal, /health, clock, token, websocket
    examination all of them in order, within one time

Nothing is sent to anybody's channel, and nothing is repaired.
"""

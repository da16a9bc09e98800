"""`chatsdk demo`: the promise, put to the test in front of you.

A sending process puts messages into its outbox while the development server drops connections, is slow, answers 503 and
429, loses replies, and while both processes are killed with SIGKILL. Then the server's own log is compared with what
`send` accepted.

    plan      what happens, in which order (a table)
    notes     the sending process's own record, which survives its death
    sending   the sending process
    fresh_keys  the plugin that breaks idempotency, for the control run
    checker   the comparison (pure)
    story     the director: starts, breaks, kills and restarts
    display   what is seen of it: live on a terminal, lines elsewhere
    run       all of it, from its temporary directory to its last line
"""

"""`chatsdk status`: do messages flow, why not, and since when?

    facts   what is looked at, as one JSON-able value: connection, network, outbox, lanes, circuits, features, health,
            errors
    words   facts in words; pure
    view    from facts to lines: a list, a line a change, or a picture that fits a terminal; pure
    watch   looks again and again, and shows it: in place on a terminal, a line or an object a change elsewhere

It looks on only: nothing is sent to anybody's channel, no message of the outbox is delivered, no lane is woken. What it
asks the server for is the websocket, and how it is: a few times at once, then every ten seconds. Circuits, features and
health are those of this process, so of that traffic; what other processes have met stands in the outbox.
"""

"""The realtime side of the development server: who is connected, what is published, and two protocols for it.

    connection   one upgraded socket: WebSocket frames, the queue of what is to be sent, closing, breaking
    upgrade      from a handshake to a session, or to a refusal
    centrifugo   one client on `/connection/websocket`, as a real Centrifugo 6.9.1 answers it
    commands     what its commands look like, and the codes they are answered with
    credentials  its view of tokens
    plain        one client on `/ws`: the plain JSON frames, written down there
    hub          all clients; streams, presence, publishing
    disturb      faults between publishing and delivery
    events       what each HTTP write publishes (contract, 11.4)
    recovery     what a subscriber is told of a stream's past
    rooms        which channel is which stream, and who may hear it
    switches     Centrifugo's API and the fault switches for Python programs; standard library only

A stream is a channel by Centrifugo's name, `chat:<app>:<channel id>`. Everything runs on the event loop's thread.
"""

"""The durable outbox: what was accepted is kept on disk until it was delivered, or stands as a dead letter.

`store` keeps, `worker` delivers, `outbox` is what the client talks to.
"""

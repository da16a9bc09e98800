"""Floor 0: what chat is, as values.

Nothing here touches a network, a disk, a thread or a clock, and nothing outside the standard library is imported;
time, randomness and waiting are arguments (`clock`). What happens in the world happens in the floors above, which carry
these values around.
"""

"""What the development server remembers. All SQL of the server is in this folder, one module per subject.

Rules: one connection, one process, one thread (the event loop's), so a statement needs no lock and two requests never
interleave inside a transaction. Whatever is answered as done was committed first; a killed process loses nothing.
"""

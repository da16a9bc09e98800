"""What users call: thin verbs, grouped by what they are about.

Each method builds a call with the backend and hands it to the client; nothing here decides, waits or retries. A
resource belongs to one view of the client, and so to one user.
"""

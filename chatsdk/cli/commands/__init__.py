"""The commands, one module each; `command` is what the group `chatsdk` shows.

A module imports little; what a command needs it imports when it runs.
"""

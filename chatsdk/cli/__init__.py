"""The command line `chatsdk` (extra [cli]).

`main` is the entry, `app` the group of commands and the border at which errors become sentences, `exits` the one table
of exit codes, `options` what every command takes, `output` what is printed and how. Each command is a module of
`commands`, imported when it is asked for, so that `chatsdk send` starts as quickly as a script that posts.
"""

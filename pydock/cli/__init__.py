"""The debug command ``pctr``: one module a group of commands, each loaded when it is used."""

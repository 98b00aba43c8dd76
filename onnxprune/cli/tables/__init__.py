"""Tables for the terminal, one file a command."""

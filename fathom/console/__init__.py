"""What the commands share: the command line's arguments and options, and what is printed."""

"""One module per subcommand of `fathom`."""

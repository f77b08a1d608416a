"""`fathom tune` with its servers: what is tuned, its batch times, and one server for each configuration."""

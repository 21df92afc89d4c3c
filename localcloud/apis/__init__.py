"""The REST APIs that running services call, and the one the command line uses."""

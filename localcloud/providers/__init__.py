"""Pulumi resource providers of the local cloud: `server.serve_providers` serves them."""

"""What a declared thing starts: virtual machines, services, databases."""

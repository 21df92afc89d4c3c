"""What each Pulumi stack declares, and the typed settings that decide it."""

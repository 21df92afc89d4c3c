"""What the project costs in time, measured against a floor in the same run: `make bench`."""

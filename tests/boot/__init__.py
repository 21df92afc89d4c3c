"""Real boots: our user data under real systemd and real cloud-init, in namespaces of this machine."""

"""Tools and runs by REST: addresses for commands, and a run's events while it lives."""

"""The kernel's HTTP edge: what the server says of itself before anyone has authenticated."""

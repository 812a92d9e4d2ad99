"""How the console writes dates: as they sort, and to the second."""

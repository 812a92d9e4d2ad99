"""See ``formats``; Django looks for a package of each language."""

"""The console's first page. What the other pages show is each app's ``admin``."""

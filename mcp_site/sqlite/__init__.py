"""Django's SQLite backend with turns for writers: an ``ENGINE``, so named by its package."""

"""What every answer over HTTP is held to: its headers, its error pages, and what a failure's report may show."""

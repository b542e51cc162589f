"""Jobs and events as files: export and import."""

"""Export and import jobs and events as files."""

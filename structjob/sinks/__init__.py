"""The destinations of events other than the database: console, file, one file per job."""

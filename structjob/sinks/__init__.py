"""Where events go beside the database: console, file, one file a job."""

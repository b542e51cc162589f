"""Where code runs, its job, step and correlation id, and what is known of its errors."""

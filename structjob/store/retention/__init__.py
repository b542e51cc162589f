"""What is kept for its time, and then archived and deleted: see `structjob.retention` for the rule, `prune` for where it begins."""

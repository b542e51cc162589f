"""Values before they are written: encoded within bounds, with secrets redacted."""

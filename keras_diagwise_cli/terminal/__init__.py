"""Terminal output of the commands: progress, tables, JSON."""

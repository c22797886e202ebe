"""What was learned against the exact solution and the truth: figures, verdict, and why."""

"""What the demo model talks about: one module per subject."""

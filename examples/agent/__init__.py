"""An agent with tools and approvals, that survives its process: see README.md."""

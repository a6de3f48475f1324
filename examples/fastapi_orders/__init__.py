"""Orders in a FastAPI application that wait for their payment: see README.md."""

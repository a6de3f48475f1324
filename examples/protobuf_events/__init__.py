"""Events that carry protobuf, as JSON and as bytes: see README.md."""

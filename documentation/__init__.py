"""What makes the documentation site: see `__main__`. No part of the package that users install."""

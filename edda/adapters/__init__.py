"""edda within other libraries: one module each, which needs that library's extra, and which nothing here imports."""

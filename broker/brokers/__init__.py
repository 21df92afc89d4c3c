"""One module or package per broker. Nothing is imported here: each brings its own libraries."""

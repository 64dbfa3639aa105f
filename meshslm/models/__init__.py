"""Model files: where they come from, how they are kept, and how they are made ready."""

"""Local files: the scratch directory, cached arrays, and offline use of the Hugging Face hub."""

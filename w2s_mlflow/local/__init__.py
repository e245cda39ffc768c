"""Local files: the scratch directory, cached arrays, and files of the Hugging Face hub."""

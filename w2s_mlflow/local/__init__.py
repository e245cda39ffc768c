"""What is kept on this machine: the cache directory, arrays, and files of the Hugging Face hub."""

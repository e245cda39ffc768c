"""Code that works on models: tokenization, heads, language modelling, inference, attribution and saved heads."""

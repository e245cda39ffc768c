"""Models: tokenization, heads, language modelling, inference, attribution, saved heads."""

"""Student methods: presets, bootstrapping, and the options of the `student` and `facilitate` stages."""

"""What a student is made of: presets, bootstrapping, and the options of students and of facilitation."""

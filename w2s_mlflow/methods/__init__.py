"""Methods of a student: presets, bootstrapping, and the options of students and of facilitation."""

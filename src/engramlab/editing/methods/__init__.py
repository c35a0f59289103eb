"""One file a method; the file name is the registration. See ``editing/method.py`` for what a method is."""

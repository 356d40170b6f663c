"""Results as people and programs read them, on the command line and on the page that plans."""

"""One opened model: the file, its header and facts, and the record of an earlier edit."""

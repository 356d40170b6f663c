"""Which scaling works on a model: conditions on the same texts, by loss and by keys found."""

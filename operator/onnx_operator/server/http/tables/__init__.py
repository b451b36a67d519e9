"""Tables in the forms that callers have them in, to the inputs of a model: pandas' JSON, and CSV."""

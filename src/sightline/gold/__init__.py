"""The gold set: is the tuned model better than its base? Paired on the same rows, with what the rows can show."""

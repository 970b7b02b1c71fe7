"""What a person sees in a terminal: charts, pages, tables, and the displays of a running fine-tune."""

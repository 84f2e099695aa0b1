"""What a pipeline answers with: samples, edits and beliefs, which show themselves in a notebook and save themselves."""

"""The data of a job: read, tried on the model, and brought to the form that its training takes."""

"""What makes inputs and labels of what was read: fitted on the training part, kept with the run, applied again."""
